import argparse

from librarian_background import background


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--once", action="store_true")
    background(run_once=parser.parse_args().once)
