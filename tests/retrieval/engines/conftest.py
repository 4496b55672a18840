from tests.servers import (
    elasticsearch_url,
    mute,
    opensearch_url,
    postgres_socket,
    postgres_url,
    qdrant_url,
    real_elastic_url,
    search_servers,
)

__all__ = [
    "elasticsearch_url",
    "mute",
    "opensearch_url",
    "postgres_socket",
    "postgres_url",
    "qdrant_url",
    "real_elastic_url",
    "search_servers",
]
