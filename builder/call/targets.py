"""What `--call=targets` answers: the stages that --target can name."""

from builder.call.document import document, located, source_data, table
from builder.dockerfile.instructions import Dockerfile


def targets_answer(dockerfile: Dockerfile, *, json: bool) -> str:
    """The stages with what the comments above them say, as a table or as BuildKit's document."""
    last = dockerfile.stages[-1]
    if json:
        targets = [
            located(
                {
                    "name": stage.name,
                    "default": stage is last,
                    "description": stage.from_.comment,
                    "base": stage.from_.image,
                    "platform": stage.from_.platform,
                },
                stage.from_.location,
            )
            for stage in dockerfile.stages
        ]
        return document({"targets": targets, "sources": [source_data(dockerfile.source)]})
    rows = [
        (f"{stage.name} (default)".strip() if stage is last else stage.name, stage.from_.comment)
        for stage in dockerfile.stages
        if stage.name or stage is last
    ]
    return table(("TARGET", "DESCRIPTION"), rows)
