"""reproduction.json of several machines -> one, with its pictures and its report."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mimctr.errors import RunError
from mimctr.evaluate.paper.join import join
from mimctr.evaluate.paper.schema import read_reproduction, write_reproduction
from mimctr.files import atomic_path
from mimctr.recipes.reproduction import report
from mimctr.recipes.reproduction.main import Finished


def main(parts: Sequence[Path], out: Path, *, command: str) -> Finished:
    """Join reproductions of different experiments and write the report of all.

    Args:
        parts: Run folders, or their ``reproduction.json``; two or more.
        out: Folder of the whole, none of the parts'.
        command: That joins them.

    Raises:
        RunError: a part or a picture is missing, one is named twice, or ``out`` holds what was not
            joined.
        DataError: a part does not follow the schema, or they do not go together.
    """
    files = [part / report.JSON if part.is_dir() or not part.suffix else part for part in parts]
    resolved = [file.resolve() for file in files]
    for number, file in enumerate(resolved):
        if file in resolved[:number]:
            raise RunError(f"{parts[number]}: named twice.")
    if (out / report.JSON).resolve() in resolved:
        raise RunError(f"{out}: is one of the parts, which would be lost. Choose another folder.")
    if (out / report.JSON).exists() and not read_reproduction(out / report.JSON).parts:
        raise RunError(f"{out}: holds a reproduction that was made there. Choose another folder.")
    made = [read_reproduction(file) for file in files]
    joined = join(dict(zip(map(str, parts), made, strict=True)), command=command)
    drawn = next((n for n, one in enumerate(made) if one.galleries), None)
    if drawn is not None:
        _copy_pictures(files[drawn].parent, out, [s.file for g in joined.galleries for s in g.sheets])
    write_reproduction(out / report.JSON, joined)
    report.main(out)
    return Finished(joined, out / report.JSON, out / report.PAGE)


def _copy_pictures(source: Path, out: Path, names: Sequence[str]) -> None:
    outside = [name for name in names if not (out / name).resolve().is_relative_to(out.resolve())]
    if outside:
        raise RunError(f"{source}: the picture {outside[0]} is not in its folder.")
    missing = [name for name in names if not (source / name).is_file()]
    if missing:
        raise RunError(
            f"{source / missing[0]}: a picture of reproduction.json is missing ({len(missing)} are)."
        )
    for name in names:
        with atomic_path(out / name) as temporary:
            shutil.copyfile(source / name, temporary)
