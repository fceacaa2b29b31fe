"""Hands the transfers of a Simons Observatory Librarian over to pysmurf-archiver.

Installed at the librarian that sends; the one that receives stays stock. `register` has the sender make managers of
ours of the answers that offer rsync; they write each batch into a spool folder, from which `pysmurf-archiver run
--batches` takes it.
"""
