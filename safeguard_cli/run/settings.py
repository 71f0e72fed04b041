"""Everything that a run was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from safeguard_cli.engine.servers.connect import ApiName
from safeguard_cli.rows.records import MAX_ROW_BYTES
from safeguard_cli.run.progress import Kind


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `safeguard label` was asked for; the names are the options'."""

    input: str
    policies: tuple[str, ...]
    output: str | None = None
    overwrite: bool = False
    append_input: bool = False
    retry_errors: bool = False
    on_error: str = "record"
    deterministic: bool = False
    format: str | None = None
    encoding: str = "utf-8"
    text_fields: tuple[str, ...] = ()
    template: str | None = None
    id_field: str | None = None
    keep: str | None = None
    only: str | None = None
    rename: str | None = None
    labels: tuple[str, ...] = ()
    violates: tuple[str, ...] = ()
    threshold: float | None = None
    effort: str = "low"
    sure: float = 0.95
    rationale: bool = False
    reasoning: bool = False
    max_reasoning: int | None = None
    policy_only_prompt: bool = False
    together: bool = False
    temperature: float = 0.0
    seed: int = 0
    scratch: bool = False  # the output is in a folder that is gone when the command ends
    each_row: bool = False  # a content that came before is labelled again, not given the same verdict
    says_text: bool | None = None  # whether the text's choice is said; None: unless quiet
    limit: int | None = None
    shard: tuple[int, int] = (1, 1)  # records.Shard
    long: str = "split"
    max_windows: int = 16
    max_row_bytes: int = MAX_ROW_BYTES
    csv_safe: bool = False
    model: str | None = None
    servers: tuple[str, ...] = field(default=(), repr=False)  # URLs may hold passwords
    server_api: ApiName = "completion"
    server_model: str | None = None
    tokenizer: str | None = None
    threads: int | None = None
    gpu_layers: int = -1
    cpu_moe: int | None = None
    kv_type: str = "f16"
    context: int | None = None
    slots: int | None = None
    repack: bool | None = None
    batch: int | None = None
    progress: Kind = "auto"
    quiet: bool = False
    verbose: bool = False
    dry_run: bool = False

    @property
    def says_its_text(self) -> bool:
        """Whether the choice of the text is said on standard error."""
        return not self.quiet if self.says_text is None else self.says_text
