"""Federation: one RAG model trained across organisations that cannot share documents.

    coordinator                                  a party, at its own place
    rounds ── Parties.ask ──── bytes ────▶  Party.answer
      │                                        │  Trainee.fit    its documents and questions
    Gathering.gather ◀──────── Parcel ───────  Sealing.seal

What leaves a party is what `Sealing` makes of an `Update`, and nothing else. `contracts` says who
does what; no module but `flower` knows the engine that carries the bytes.
"""
