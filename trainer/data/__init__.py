"""Pictures to training batches.

The way of a batch: files and videos become pictures (`pictures`), pictures become training images
(`augment`), and images become batches (`batches`). `domains` opens the data of a run, `pairing` finds
pairs, `loading` reads pictures to be shown or measured.
"""
