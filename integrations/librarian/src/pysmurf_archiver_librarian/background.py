"""`archiver-librarian-background`: the Librarian's background process with our manager in it. It takes the options of
`librarian-background-only`."""

import sys

from .spool import Spool, SpoolError


def main() -> None:
    try:
        from .registration import UnknownLibrarianError, register
    except ImportError as error:
        sys.exit(f"archiver-librarian-background: {error}; install this package into the environment of the Librarian")
    try:
        # A wrong setting is told here at once rather than with each batch.
        Spool.from_environment().prepare()
        register()
    except (SpoolError, UnknownLibrarianError) as error:
        sys.exit(f"archiver-librarian-background: {error}")
    # Its import reads settings and opens the database.
    from librarian_server_scripts.librarian_background_only import main as background

    background()


if __name__ == "__main__":
    main()
