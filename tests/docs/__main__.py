"""The generated parts of the pages in docs/.

python -m tests.docs             write them again, and name the pages that changed
python -m tests.docs --check     change nothing, and exit with 1 if a page is out of date
"""

from __future__ import annotations

import argparse
import sys

from tests.docs.pages import PAGES, ROOT, render


def main() -> int:
    """Write or check each page, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.docs", description="Write the generated pages.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is out of date")
    check: bool = parser.parse_args().check
    stale = {path: current for path in PAGES if (current := render(text := path.read_text())) != text}
    for path, current in stale.items():
        if check:
            print(f"{path.relative_to(ROOT)} is out of date; run: python -m tests.docs")
        else:
            path.write_text(current)
            print(f"updated {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
