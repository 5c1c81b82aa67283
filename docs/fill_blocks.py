"""Write every block of numbers of the README and docs/results.md anew from the committed results."""

from pathlib import Path

from mimctr.report.blocks import fill_blocks

ROOT = Path(__file__).parent.parent


def main() -> None:
    for name in ("README.md", "docs/results.md"):
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = fill_blocks(before, ROOT)
        path.write_text(after, encoding="utf-8")
        print(f"{name}: {'written anew' if after != before else 'as it was'}")


if __name__ == "__main__":
    main()
