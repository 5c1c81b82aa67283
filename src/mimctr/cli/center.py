"""mimctr center: generations, snapshots, new items and parameter stores."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from mimctr.cli.options import ConfigFile, Json, Settings, show
from mimctr.cli.stopping import ends_when_told

NAME = "center"
app = typer.Typer(
    help="The representation center: vectors of the whole catalogue, new items within a second.",
    no_args_is_help=True,
)
Center = Annotated[Path, typer.Argument(help="folder of the center")]
Generation = Annotated[int, typer.Argument(help="its number, as 'mimctr center status' shows it")]
Chosen = Annotated[
    int | None, typer.Option("--generation", help="its number; default: the active one, or the newest")
]
Stores = Annotated[
    list[str] | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="parameter store: redis://HOST:PORT/0, redis+cluster://HOST:PORT; may be repeated",
    ),
]
Name = Annotated[str, typer.Option(help="of the center on its stores: several may share a server")]
Vectors = Annotated[str, typer.Option("--dtype", help="how vectors are kept: float16, int8 or float32")]


def init(
    center: Center,
    partitions: Annotated[
        int, typer.Option(min=1, max=16384, help="parts that windows and stores keep apart")
    ] = 16,
) -> None:
    """Make an empty center."""
    from mimctr.recipes import center as recipe

    show(recipe.init(center, num_partitions=partitions), as_json=False)


def build(
    center: Center,
    dataset: Annotated[Path, typer.Option(help="folder written by 'mimctr prepare'")],
    encoder: Annotated[Path, typer.Option(help="item encoder, written by 'mimctr csft' or 'mimctr plain'")],
    dtype: Vectors = "float16",
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Embed the catalogue and what came in since as a new generation; new items go to it from now on."""
    from mimctr.recipes import center as recipe
    from mimctr.recipes import center_build, embed
    from mimctr.recipes.config import load_config

    found = load_config(embed.Config, config, section="embed", assignments=settings or [])
    made = center_build.main(center, dataset, encoder, found, dtype=recipe.vector_dtype(dtype))
    show(made._asdict(), as_json=False)


def import_(
    center: Center,
    vectors: Annotated[
        Path, typer.Argument(help=".parquet (item_id, vector), .npy with --ids, or .safetensors")
    ],
    ids: Annotated[Path | None, typer.Option(help=".npy of the item ids of a .npy")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="name of what made them; default: a hash of the file")
    ] = None,
    dtype: Vectors = "float16",
) -> None:
    """Register anybody's own vectors as a new generation."""
    from mimctr.recipes import center as recipe
    from mimctr.recipes import center_vectors

    made = center_vectors.import_vectors(
        center, vectors, ids=ids, encoder=encoder, dtype=recipe.vector_dtype(dtype)
    )
    show(made._asdict(), as_json=False)


def export(
    center: Center,
    out: Annotated[Path, typer.Option(help="Parquet file: item_key, vector")],
    generation: Chosen = None,
) -> None:
    """Write the newest snapshot of a generation as Parquet."""
    from mimctr.recipes import center_vectors

    show({"num_vectors": center_vectors.export_vectors(center, out, generation=generation)}, as_json=False)


def ingest(
    center: Center,
    items: Annotated[
        Path,
        typer.Argument(
            help="Parquet, CSV or JSON lines, or a folder of them: item_id, title, image, category, deleted; - is stdin"
        ),
    ],
    images: Annotated[Path, typer.Option(help="what paths of pictures are relative to")] = Path("."),
    json: Json = False,
) -> None:
    """Encode new items and log them; every parameter store has them as soon as it follows."""
    import sys

    from mimctr.recipes import center_ingest

    rows, count = (
        (center_ingest.read_lines(sys.stdin), None) if str(items) == "-" else center_ingest.read_table(items)
    )
    found = center_ingest.main(center, rows, images=images, num_rows=count)
    show(found, as_json=json)
    if found.num_refused:
        raise typer.Exit(1)


def publish(
    center: Center,
    store: Stores = None,
    name: Name = "mimctr",
    follow: Annotated[bool, typer.Option(help="go on until interrupted")] = False,
) -> None:
    """Bring parameter stores up to date with all live generations."""
    from mimctr.recipes import center as recipe

    with ends_when_told() if follow else contextlib.nullcontext():
        show(recipe.publish(center, store or [], name=name, follow=follow), as_json=False)


def compact(center: Center, generation: Chosen = None) -> None:
    """Write the next snapshot of a generation, from its last one and the windows since."""
    from mimctr.recipes import center as recipe

    show(recipe.compact(center, generation), as_json=False)


def seal(
    center: Center,
    generation: Generation,
    store: Stores = None,
    name: Name = "mimctr",
    min_coverage: Annotated[
        float, typer.Option(min=0, max=1, help="least share of the items served now")
    ] = 0.99,
) -> None:
    """Compare log and stores, and let a generation be activated."""
    from mimctr.recipes import center as recipe

    show(recipe.seal(center, generation, store or [], name=name, min_coverage=min_coverage), as_json=False)


def activate(center: Center, generation: Generation) -> None:
    """Serve a sealed generation."""
    from mimctr.recipes import center as recipe

    show(recipe.activate(center, generation), as_json=False)


def rollback(center: Center) -> None:
    """Serve the generation that was active before."""
    from mimctr.recipes import center as recipe

    show(recipe.rollback(center), as_json=False)


def drop(center: Center, generation: Generation, store: Stores = None, name: Name = "mimctr") -> None:
    """Forget a generation that is not served, here and on the stores."""
    from mimctr.recipes import center as recipe

    show(recipe.drop(center, generation, store or [], name=name), as_json=False)


def status(center: Center, store: Stores = None, name: Name = "mimctr", json: Json = False) -> None:
    """Show generations, snapshots, windows and how far stores lag behind."""
    from mimctr.recipes import center as recipe

    show(recipe.status(center, store or [], name=name), as_json=json)


def verify(center: Center, store: Stores = None, name: Name = "mimctr") -> None:
    """Read and check every byte of the center, and compare the stores with it."""
    from mimctr.recipes import center as recipe

    show(recipe.verify(center, store or [], name=name), as_json=False)


def gc(
    center: Center,
    keep_snapshots: Annotated[int, typer.Option(min=1, help="of each generation")] = 2,
    keep_hours: Annotated[float, typer.Option(min=0, help="windows younger than that stay")] = 24.0,
) -> None:
    """Remove old snapshots, and windows that are in the newest one."""
    from mimctr.recipes import center as recipe

    show(recipe.collect_garbage(center, keep_snapshots=keep_snapshots, keep_hours=keep_hours), as_json=False)


def plan(
    items: Annotated[float, typer.Option(min=1, help="in the catalogue; 1.42e9 will do")],
    dim: Annotated[int, typer.Option(min=1, help="of the vectors")] = 128,
    dtype: Vectors = "float16",
    memory: Annotated[
        float, typer.Option(min=1, help="GB of a machine that runs one primary of a cluster")
    ] = 64.0,
    fill: Annotated[float, typer.Option(min=0.05, max=1, help="share of it that Redis may fill")] = 0.7,
    replicas: Annotated[int, typer.Option(min=0, help="of each primary")] = 1,
    new_a_day: Annotated[float, typer.Option(min=0, help="items that come in, or change, a day")] = 0.0,
    json: Json = False,
) -> None:
    """Print what a catalogue takes: bytes, machines, and what the numbers rest on."""
    from mimctr.recipes import center as recipe

    found = recipe.plan_catalogue(
        round(items),
        dim=dim,
        dtype=recipe.vector_dtype(dtype),
        memory=memory * 1e9,
        fill=fill,
        replicas=replicas,
        new_a_day=round(new_a_day),
    )
    show(found, as_json=json)


COMMANDS: dict[str, Callable[..., None]] = {
    "plan": plan,
    "init": init,
    "build": build,
    "import": import_,
    "ingest": ingest,
    "publish": publish,
    "compact": compact,
    "seal": seal,
    "activate": activate,
    "rollback": rollback,
    "status": status,
    "verify": verify,
    "gc": gc,
    "drop": drop,
    "export": export,
}
EXAMPLES = {
    "plan": "mimctr center plan --items 1.42e9 --dim 128 --dtype int8",
    "init": "mimctr center init center",
    "build": "mimctr center build center --dataset dataset --encoder csft",
    "import": "mimctr center import center clip.parquet --encoder clip-vit-b32",
    "ingest": "mimctr center ingest center new_items.parquet --images photos",
    "publish": "mimctr center publish center --store redis://localhost:6379/0 --follow",
    "compact": "mimctr center compact center",
    "seal": "mimctr center seal center 2 --store redis://localhost:6379/0",
    "activate": "mimctr center activate center 2",
    "rollback": "mimctr center rollback center",
    "status": "mimctr center status center",
    "verify": "mimctr center verify center",
    "gc": "mimctr center gc center",
    "drop": "mimctr center drop center 1",
    "export": "mimctr center export center --out vectors.parquet",
}
