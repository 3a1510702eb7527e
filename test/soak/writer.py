"""writer.py MOUNT SECONDS: another driver, another language, a database of its own."""

import os
import random
import sqlite3
import sys
import time

mount, pause = sys.argv[1], float(sys.argv[2])
path = os.path.join(mount, "python.db")
while True:
    try:
        db = sqlite3.connect(path, timeout=20)
        db.execute("PRAGMA journal_mode = " + random.choice(["TRUNCATE", "PERSIST", "DELETE"]))
        db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v TEXT)")
        for _ in range(50):
            with db:
                db.execute("INSERT INTO t (v) VALUES (hex(randomblob(100)))")
                db.execute("DELETE FROM t WHERE id <= (SELECT max(id) FROM t) - 1000")
            time.sleep(pause)
        db.close()
    except sqlite3.OperationalError:
        if not os.path.exists(path):
            sys.exit(1)
        time.sleep(pause)
