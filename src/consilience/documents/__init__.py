"""Documents and passages, and the readers that make them out of files."""

from consilience.documents.document import Document, Page, Passage
from consilience.documents.formats import SUFFIXES
from consilience.documents.limits import ReadLimits
from consilience.documents.read import read_document
from consilience.documents.triples import Triple, triples_of
from consilience.documents.walk import Failure, Found, Skipped, find_documents

__all__ = [
    "SUFFIXES",
    "Document",
    "Failure",
    "Found",
    "Page",
    "Passage",
    "ReadLimits",
    "Skipped",
    "Triple",
    "find_documents",
    "read_document",
    "triples_of",
]
