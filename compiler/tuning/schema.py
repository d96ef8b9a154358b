"""The tables of a records file: SQLite, one writer, rows that are only ever added.

Times are in seconds. What several sessions share (machines, code versions, tasks, choices) is
stored once and found by its natural key, by which files are merged, too.
"""

from __future__ import annotations

VERSION = 1  # of these tables

TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE machine(
  id INTEGER PRIMARY KEY, class TEXT NOT NULL UNIQUE, facts TEXT NOT NULL);
CREATE TABLE code(
  id INTEGER PRIMARY KEY, version TEXT NOT NULL, toolchain TEXT NOT NULL,
  UNIQUE(version, toolchain));
CREATE TABLE task(
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, choice_key TEXT NOT NULL,
  target TEXT NOT NULL, sizes TEXT NOT NULL, threads INTEGER NOT NULL, regime TEXT NOT NULL);
CREATE TABLE choice(
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, json TEXT NOT NULL);
CREATE TABLE session(
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, model TEXT NOT NULL, name TEXT NOT NULL,
  target TEXT NOT NULL, options TEXT NOT NULL, machine INTEGER NOT NULL REFERENCES machine,
  protocol INTEGER NOT NULL, seed INTEGER NOT NULL, started TEXT NOT NULL);
CREATE TABLE member(
  session INTEGER NOT NULL REFERENCES session, task INTEGER NOT NULL REFERENCES task,
  number INTEGER NOT NULL, calls INTEGER NOT NULL, seconds REAL NOT NULL,
  roof_share REAL NOT NULL, skipped TEXT NOT NULL, PRIMARY KEY(session, task));
CREATE TABLE wave(
  session INTEGER NOT NULL REFERENCES session, number INTEGER NOT NULL,
  shares TEXT NOT NULL, PRIMARY KEY(session, number));
CREATE TABLE batch(
  id INTEGER PRIMARY KEY, session INTEGER NOT NULL REFERENCES session,
  task INTEGER NOT NULL REFERENCES task, number INTEGER NOT NULL, wave INTEGER NOT NULL,
  code INTEGER NOT NULL REFERENCES code, seconds REAL NOT NULL, worker TEXT NOT NULL,
  UNIQUE(session, task, number));
CREATE TABLE trial(
  batch INTEGER NOT NULL REFERENCES batch, position INTEGER NOT NULL,
  choice INTEGER NOT NULL REFERENCES choice, exact INTEGER NOT NULL, predicted REAL NOT NULL,
  digest TEXT NOT NULL, error TEXT NOT NULL, PRIMARY KEY(batch, position));
CREATE TABLE turn(
  id INTEGER PRIMARY KEY, batch INTEGER NOT NULL REFERENCES batch, number INTEGER NOT NULL,
  kind TEXT NOT NULL, seconds REAL NOT NULL, disturbed TEXT NOT NULL, failures TEXT NOT NULL,
  UNIQUE(batch, number));
CREATE TABLE sample(
  turn INTEGER NOT NULL REFERENCES turn, place INTEGER NOT NULL, position INTEGER NOT NULL,
  least REAL NOT NULL, lower_quartile REAL NOT NULL, median REAL NOT NULL, count INTEGER NOT NULL,
  PRIMARY KEY(turn, place));
CREATE TABLE verdict(
  id INTEGER PRIMARY KEY, session INTEGER NOT NULL REFERENCES session,
  task INTEGER NOT NULL REFERENCES task, number INTEGER NOT NULL,
  machine INTEGER NOT NULL REFERENCES machine, protocol INTEGER NOT NULL,
  base INTEGER NOT NULL REFERENCES choice,
  choice INTEGER NOT NULL REFERENCES choice, base_digest TEXT NOT NULL, digest TEXT NOT NULL,
  pairs INTEGER NOT NULL, wins INTEGER NOT NULL, ratio REAL NOT NULL, low REAL NOT NULL,
  high REAL NOT NULL, date TEXT NOT NULL,
  UNIQUE(session, task, number));
CREATE TABLE outcome(
  id INTEGER PRIMARY KEY, session INTEGER NOT NULL REFERENCES session, number INTEGER NOT NULL,
  tasks TEXT NOT NULL, result TEXT NOT NULL, date TEXT NOT NULL, UNIQUE(session, number));
"""
