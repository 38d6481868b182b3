"""cimc: what would this transformer do on compute-in-memory hardware?"""
