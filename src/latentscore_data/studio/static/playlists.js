// The list of kept pieces.

export function keepPiece() {}
