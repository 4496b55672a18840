"""PostgreSQL with pgvector: BM25 in SQL, vectors in HNSW, one transaction a commit."""

from consilience.retrieval.engines.postgres.engine import PostgresEngine

__all__ = ["PostgresEngine"]
