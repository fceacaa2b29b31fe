import os

from sqlalchemy import create_engine
from sqlalchemy.orm import Session, declarative_base, sessionmaker

engine = create_engine(f"sqlite:///{os.environ['LIBRARIAN_SERVER_DATABASE']}")
maker = sessionmaker(bind=engine, autoflush=False)
Base = declarative_base()


def get_session() -> Session:
    return maker()
