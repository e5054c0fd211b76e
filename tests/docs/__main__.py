"""``python -m tests.docs``: write the generated parts of all pages again, and name the pages that changed."""

from __future__ import annotations

from tests.docs.pages import PAGES, ROOT, render


def main() -> None:
    """Write each page that is not up to date."""
    for path in PAGES:
        text = path.read_text()
        current = render(text)
        if current != text:
            path.write_text(current)
            print(f"updated {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
