"""From settings to a driver: how requests for traces are driven, fixed in number or adaptive."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from pipeline.driver import Driver
from pipeline.engine import Completion, Endpoint, Request
from pipeline.errors import UserError
from pipeline.tally import DriveSettings, Tally
from pipeline.work import Sink
from teacher.asking import Adaptive
from teacher.continuing import Continuing
from teacher.live import Live
from teacher.replicas import Engine
from teacher.settings import AskSettings


def driver_for(
    endpoints: Sequence[Endpoint],
    sink: Sink,
    to_row: Callable[[Request, Completion], dict[str, Any]],
    settings: AskSettings,
    *,
    engine: Engine | None,
    listed: Callable[[], list[Endpoint]] | None,
    loops: Callable[[str], bool] | None,
    live: Live | None,
    continuing: Continuing | None,
    asked: Adaptive | None = None,
    gave_up: Callable[[Request], None] = lambda request: None,
) -> Driver:
    """Return a driver that asks as the settings say; the arguments are those of `sample` and of `Driver`.

    Args:
        asked: where each problem stands, for what progress shows.
    """

    def trouble(still: Collection[Endpoint]) -> str | None:
        told = (live.trouble() if live else None) or (continuing.trouble() if continuing else None)
        return told or (engine.tend(still) if engine else None)

    continued: dict[str, Any] = {"follow": continuing.follow, "refused": continuing.refused} if continuing else {}
    driver = Driver(
        list(endpoints),
        sink,
        to_row,
        DriveSettings(
            concurrency=settings.concurrency,
            timeout_s=settings.timeout_s,
            stall_s=settings.stall_s,
            attempts=settings.attempts,
            patience_s=settings.patience_s,
            stream=settings.streams,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
        ),
        trouble,
        starting=engine.starting if engine else list,
        listed=listed,
        loops=loops,
        note=lambda: live.note(driver.tally, driver.paces, asked) if live else "",
        gave_up=gave_up,
        **continued,
    )
    return driver


def check_given_up(tally: Tally, what: str, of: int, attempts: int) -> None:
    """Say which samples are missing.

    Raises:
        UserError: some were given up.
    """
    if tally.given_up:
        raise UserError(
            f"{what}: {len(tally.given_up)} of {of} samples were given up after {attempts} attempts "
            f"each (last: {list(tally.given_up.values())[-1]}); the others are kept",
            "run the same command again for those alone",
            "raise sampling.attempts or sampling.timeout_s",
        )
