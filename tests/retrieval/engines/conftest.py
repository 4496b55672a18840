from tests.servers import (
    elasticsearch_url,
    milvus_server,
    milvus_url,
    mute,
    old_milvus_server,
    opensearch_url,
    postgres_socket,
    postgres_url,
    qdrant_url,
    real_elastic_url,
    real_milvus_url,
    search_servers,
)

__all__ = [
    "elasticsearch_url",
    "milvus_server",
    "milvus_url",
    "mute",
    "old_milvus_server",
    "opensearch_url",
    "postgres_socket",
    "postgres_url",
    "qdrant_url",
    "real_elastic_url",
    "real_milvus_url",
    "search_servers",
]
