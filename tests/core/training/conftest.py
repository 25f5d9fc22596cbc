from __future__ import annotations

from pathlib import Path

import pytest

from latentscore_data.core.workspace import Workspace
from training_runs import write_rows


@pytest.fixture
def workspace(root: Path) -> Workspace:
    """Rows in every split that training reads."""
    workspace = Workspace(root)
    write_rows(workspace)
    return workspace
