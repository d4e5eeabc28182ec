"""Training of the bundled demo model: documents, model, optimizer, export and evaluation.

Used only by `tools/train_demo.py`; nothing that ships imports it.
"""
