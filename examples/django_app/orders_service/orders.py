"""What the service reads: the monolith's own tables, and nothing is ever written.

While a move can still be taken back there is one truth, and the old code owns it: an order that was placed a
moment ago is on both sides, and a rollback loses nothing. The tables are the last thing to move out.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

ORDERS = """
    SELECT o.id AS number, u.username AS customer, date(o.placed_at) AS placed, o.status,
           COALESCE(SUM(l.quantity), 0) AS items, COALESCE(SUM(l.quantity * l.price), 0) AS total,
           (SELECT COUNT(*) FROM orders_attachment a WHERE a.order_id = o.id) AS files
    FROM orders_order o
    JOIN auth_user u ON u.id = o.customer_id
    LEFT JOIN orders_orderline l ON l.order_id = o.id
    WHERE (:customer IS NULL OR o.customer_id = :customer)
      AND (:number IS NULL OR o.id = :number)
      AND (:status = '' OR o.status = :status)
    GROUP BY o.id
    ORDER BY o.placed_at DESC, o.id DESC
"""
LINES = """
    SELECT product, quantity, price, quantity * price AS total FROM orders_orderline
    WHERE order_id = :number ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Orders:
    """The orders in a database file; `customer` is the id of the user who may see them, None sees all."""

    file: Path

    def find(self, customer: int | None, status: str = "") -> list[dict[str, Any]]:
        return self._read(ORDERS, customer=customer, number=None, status=status)

    def get(self, customer: int | None, number: int) -> dict[str, Any] | None:
        """Return an order with its `lines`."""
        for order in self._read(ORDERS, customer=customer, number=number, status=""):
            return order | {"lines": self._read(LINES, number=number)}
        return None

    def _read(self, query: str, **values: Any) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(f"{self.file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query, values)]
