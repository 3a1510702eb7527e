"""An application of a chaos run: reads and writes one database on one node until it is killed.

argv: database, file of the history (outside of the mount), client, seed, accounts, pause in ms.
Each operation is told to the history before it begins and after it has ended, one line of JSON each,
with the time of CLOCK_MONOTONIC in microseconds. Connections that fail are opened anew.
"""

import json
import os
import random
import sqlite3
import sys
import time

path, history, client, seed, accounts, pause = sys.argv[1:7]
client = int(client)
accounts = int(accounts)
chance = random.Random(int(seed))
out = os.open(history, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
KINDS = ["insert"] * 8 + ["transfer"] * 6 + ["rollback"] + ["read"] * 6
INSERT = "INSERT INTO event(client, op, part, debit, credit, amount, mark) VALUES (?,?,?,?,?,?,?)"
db = None
device = None


def tell(**entry):
    entry["at"] = time.monotonic_ns() // 1000
    os.write(out, (json.dumps(entry) + "\n").encode())


def connect():
    global db, device
    device = os.stat(path).st_dev
    # Never makes a file: below a mount that is gone there is an ordinary directory.
    db = sqlite3.connect("file:" + path + "?mode=rw", uri=True, isolation_level=None, timeout=2)
    db.execute("PRAGMA synchronous=" + chance.choice(["FULL", "NORMAL"]))


def disconnect():
    global db
    try:
        if db is not None:
            db.close()
    except sqlite3.Error:
        pass  # Its mount may be gone.
    db = None


def is_gone():
    """On a mount that has died SQLite takes each failed lock of a WAL for SQLITE_BUSY, for ever."""
    try:
        return os.stat(path).st_dev != device
    except OSError:
        return True


def insert(op, part, amount):
    debit, credit = chance.sample(range(1, accounts + 1), 2)
    mark = "<%d.%d.%d>" % (client, op, part)
    db.execute(INSERT, (client, op, part, debit, credit, amount, mark))
    if amount:
        db.execute("UPDATE account SET balance = balance - ? WHERE id = ?", (amount, debit))
        db.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, credit))


def write(op, kind, rows):
    if kind == "insert":
        insert(op, 0, 0)
        return
    db.execute("BEGIN IMMEDIATE")
    for part in range(rows):
        insert(op, part, chance.randrange(1, 100))
    db.execute("COMMIT" if kind == "transfer" else "ROLLBACK")


def read():
    db.execute("BEGIN")
    count, balance = db.execute("SELECT count(*), sum(balance) FROM account").fetchone()
    progress = db.execute("SELECT client, op, rows FROM progress").fetchall()
    rows = db.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
    db.execute("COMMIT")
    return {"accounts": count, "balance": balance, "rows": rows, "progress": progress}


op = 0
while True:
    time.sleep(chance.expovariate(1) * float(pause) / 1000)
    try:
        if db is None:
            connect()
    except (sqlite3.Error, OSError):
        disconnect()
        continue
    op += 1
    kind = chance.choice(KINDS)
    rows = 0 if kind == "read" else 1 if kind == "insert" else chance.randrange(1, 5)
    tell(op=op, kind=kind, rows=rows)
    try:
        if kind == "read":
            tell(op=op, outcome="ok", snapshot=read())
        else:
            write(op, kind, rows)
            tell(op=op, outcome="refused" if kind == "rollback" else "ok")
    except sqlite3.Error as error:
        outcome = "unknown"
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                outcome = "refused"
        except sqlite3.Error:
            pass  # The connection is given up below, and the outcome stays unknown.
        tell(op=op, outcome=outcome, error=str(error))
        if outcome == "unknown" or is_gone():
            disconnect()
