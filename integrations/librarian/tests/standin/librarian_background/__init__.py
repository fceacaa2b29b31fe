from datetime import timedelta


def background(run_once: bool = False) -> None:
    from librarian_server.database import get_session
    from librarian_server.orm import now

    from .queues import check_on_consumed, consume_queue_item

    while consume_queue_item(session_maker=get_session):
        pass
    check_on_consumed(session_maker=get_session, timeout_after=now() + timedelta(minutes=1))
