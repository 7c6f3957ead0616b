"""The report of `bench.gpu.check` as Markdown."""

from __future__ import annotations

from typing import Any


def write_tables(report: dict[str, Any]) -> str:
    """All tables, and what was skipped or failed."""
    parts = report["parts"]
    lines = [_machine(parts.get("machine", {}))] + ([report["note"]] if "note" in report else [])
    lines += _towers(parts.get("towers", []))
    lines += _speed(parts.get("training_speed", []))
    lines += _agreement(parts)
    lines += _exported(parts.get("exported", {}))
    for what in ("skipped", "failed"):
        lines += [f"{what}: {name} ({why})" for name, why in report[what].items()]
    return "\n".join(lines) + "\n"


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {told}" for name, told in machine.get("versions", {}).items())
    rates = ", ".join(
        f"{name} {machine[f'product_tflops_{name}']}" for name in ("fp32", "tf32", "bf16", "fp16")
        if f"product_tflops_{name}" in machine
    )
    return f"{machine.get('gpu', 'CPU')}, {machine.get('gib', '?')} GiB; {versions}. TFLOP/s of a product of 8,192: {rates}."


def _table(header: list[str], rows: list[list[Any]]) -> list[str]:
    if not rows:
        return []
    return ["", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(
        f"| {' | '.join('' if cell is None else str(cell) for cell in row)} |" for row in rows
    ), ""]


def _towers(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each shape and precision; in a column all batches of a kind."""
    kinds = {kind: sorted({row["batch"] for row in rows if row["kind"] == kind}) for kind in ("pictures", "clips", "texts")}
    found: dict[tuple[str, str], dict[tuple[str, int], float]] = {}
    cosines: dict[tuple[str, str], float] = {}
    whole = {row["shape"]: row["per_second"] for row in rows if row["kind"] == "clips, end to end"}
    for row in rows:
        if row["kind"] in kinds:
            found.setdefault((row["shape"], row["precision"]), {})[row["kind"], row["batch"]] = row["per_second"]
            cosines[row["shape"], row["precision"]] = row["least_cosine"]
    heads = [f"{kind} a second, batch {' / '.join(map(str, batches))}" for kind, batches in kinds.items()]
    return _table(["towers", "precision", *heads, "least cosine", "clips a second, end to end"], [
        [*key, *(" / ".join(_rate(rates.get((kind, batch))) for batch in batches) for kind, batches in kinds.items()),
         cosines[key], _rate(whole.get(key[0])) if key[1] == "fp32" else ""] for key, rates in found.items()
    ])


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _speed(rows: list[dict[str, Any]]) -> list[str]:
    return _table(
        ["training", "batch", "chunk", "precision", "step ms", "clips a second", "with data", "waiting", "peak GiB"],
        [
            [row["shape"], f"{row['batch']} x {row['frames']}", row["chunk"], row["precision"], *(
                [row["failed"]] if "failed" in row else [
                    row["step_ms"], row["clips_per_second"], row["with_data_clips_per_second"],
                    f"{100 * row['data_share']:.0f} %", row.get("peak_gib"),
                ]
            )] for row in rows
        ],
    )


def _agreement(parts: dict[str, Any]) -> list[str]:
    training, rows = parts.get("training", {}), []
    for name, each in training.get("gradients", {}).items():
        if isinstance(each, dict):
            rows.append([f"gradients, {name}", f"{each['relative_difference']:.1e}", f"{each['least_cosine']:.6f}"])
    for name, each in training.get("chunks", {}).items():
        what = f"gradients in chunks against the batch as one, {name}"
        rows.append([what, f"{each['relative_difference']:.1e}", f"{each['least_cosine']:.6f}"])
    for name, each in training.get("loss_curves", {}).get("largest_difference", {}).items():
        rows.append([f"loss curve, {name}", f"{each:.1e}", ""])
    if "adapter" in training:
        rows.append(["vectors, merged on the CPU", "", f"{training['adapter']['least_cosine']:.7f}"])
    if "resume" in parts:
        rows.append(["loss curve, stopped and gone on", f"{parts['resume']['largest_difference']:.1e}", ""])
    paths = parts.get("paths", {})
    rows += [[f"loss curve, {name}", each["failed"], ""] for name, each in paths.items() if "failed" in each]
    differences = [each["largest_difference"] for each in paths.values() if "failed" not in each]
    if differences:
        rows.append([f"loss curves of {len(differences)} ways of training", f"{max(differences):.1e}", ""])
    return _table(["against the CPU in fp32", "difference", "least cosine"], rows)


def _exported(parts: dict[str, Any]) -> list[str]:
    rows, names = [], sorted({key for each in parts.values() for key in each if "_per_second_at_" in key},
                             key=lambda key: (key.split("_")[0], int(key.rsplit("_", 1)[1])))
    for name, each in parts.items():
        if reason := each.get("skipped") or each.get("failed"):
            rows.append([name, reason])
        else:
            rows.append([name, each["least_cosine_video"], each["least_cosine_text"], "yes" if each["admitted"] else "no",
                         *(each.get(key) for key in names)])
    return _table(["exported", "least cosine, clips", "texts", "fp32's gate", *(
        key.replace("_per_second_at_", " a second, batch ") for key in names
    )], rows)
