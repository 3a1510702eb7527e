"""Inserts rows until it is killed or its database goes away.

argv: database, file of acknowledgements (outside the mount), writer number, rows per transaction,
synchronous. Rows of one writer count up without a gap, so that a lost or doubled one shows.
"""

import os
import sqlite3
import sys

path, acknowledgements, writer, batch, synchronous = sys.argv[1:6]
writer = int(writer)
batch = int(batch)
ack = os.open(acknowledgements, os.O_RDWR | os.O_CREAT)
try:
    db = sqlite3.connect(path, isolation_level=None, timeout=20)
    db.execute("PRAGMA synchronous=" + synchronous)
    if batch > 20:
        # What does not fit goes out before the commit.
        db.execute("PRAGMA cache_size=5")
    # Under the write lock, for which a replica must have all that the primary has committed.
    db.execute("BEGIN IMMEDIATE")
    last = db.execute("SELECT coalesce(max(n), 0) FROM t WHERE writer=?", (writer,)).fetchone()[0]
    db.execute("COMMIT")
    os.pwrite(ack, b"%012d" % last, 0)
    turn = 0
    while True:
        turn += 1
        if batch == 1:
            db.execute("INSERT INTO t VALUES (?, ?, randomblob(300))", (writer, last + 1))
        else:
            db.execute("BEGIN IMMEDIATE")
            for n in range(last + 1, last + 1 + batch):
                db.execute("INSERT INTO t VALUES (?, ?, randomblob(300))", (writer, n))
            if turn % 7 == 0:
                db.execute("ROLLBACK")
                continue
            db.execute("COMMIT")
        last += batch
        os.pwrite(ack, b"%012d" % last, 0)
except sqlite3.Error as error:
    print(error, file=sys.stderr)
    sys.exit(3)
