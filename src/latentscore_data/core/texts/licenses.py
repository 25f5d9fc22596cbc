"""The licence identifiers that the hub accepts in a card. It rejects a card with another one."""

from __future__ import annotations

import difflib

from latentscore_data.core.base.errors import InputError

# https://huggingface.co/docs/hub/repositories-licenses
_NAMES = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
    other
    """
HUB_LICENSES = frozenset(_NAMES.split())

OWN_PREFIX = "licenseref-"
"""The SPDX prefix of a licence that is not on the SPDX list, in small letters."""


def check_license(name: str | None) -> None:
    """Raise :class:`InputError` for a licence that the hub rejects. None is allowed."""
    if name is None or license_lines(name) is not None:
        return
    near = difflib.get_close_matches(name.strip().lower(), HUB_LICENSES, n=2)
    remedy = f"write {' or '.join(near)}" if near else "write it as the hub does (cc-by-4.0)"
    raise InputError(
        f"export.license {name!r} is not a licence that the hub knows", f"{remedy}, or LicenseRef-NAME for your own"
    )


def license_lines(name: str) -> dict[str, str] | None:
    """Return the lines of a card's header for a licence; None for a name that the hub rejects."""
    text = name.strip().lower()
    if text in HUB_LICENSES:
        return {"license": text}
    if text.startswith(OWN_PREFIX) and (slug := license_slug(text.removeprefix(OWN_PREFIX))):
        return {"license": "other", "license_name": slug}
    return None


def license_slug(name: str) -> str:
    """Return a custom licence's name in the form that the hub accepts: at most 60 letters, digits, dots and dashes."""
    return "-".join("".join(c if c.isalnum() or c in ".-" else " " for c in name.lower()).split())[:60]
