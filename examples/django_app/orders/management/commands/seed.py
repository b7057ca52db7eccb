"""`manage.py seed`: users and orders to begin with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group, Permission, User
from django.core.management.base import BaseCommand
from django.db import transaction
from django.utils import timezone

from ...models import CATALOGUE, Order  # noqa: TID252 - `orders` is found by Django only

PASSWORD = "demo"
USERS = {
    "alice": "Customers",
    "bob": "Sales",
}
ORDERS = [  # of whom, days ago, status, how many of each product
    ("alice", 41, Order.Status.SHIPPED, (2, 1, 0, 0)),
    ("bob", 17, Order.Status.SHIPPED, (0, 0, 4, 0)),
    ("alice", 12, Order.Status.CANCELLED, (0, 3, 0, 0)),
    ("alice", 5, Order.Status.SHIPPED, (1, 0, 2, 1)),
    ("bob", 2, Order.Status.OPEN, (6, 0, 0, 0)),
    ("alice", 1, Order.Status.OPEN, (3, 0, 1, 0)),
]


class Command(BaseCommand):  # type: ignore[misc]
    """Make users and orders, unless they are there."""

    help = "Make the users alice and bob (staff), and some orders, unless they are there."
    # The table's upstreams and secrets are nothing to the database.
    requires_system_checks = ()

    def handle(self, *_: Any, **__: Any) -> None:
        """Do it all, or nothing."""
        if User.objects.filter(username__in=USERS).exists():
            self.stdout.write("The users are there already; nothing is changed.")
            return
        with transaction.atomic():
            self.fill()
        self.stdout.write(f"{len(ORDERS)} orders; log in as {' or '.join(USERS)}, password {PASSWORD}")

    def fill(self) -> None:
        users = {name: self.user(name, group) for name, group in USERS.items()}
        for name, days, status, numbers in ORDERS:
            placed = timezone.now() - timedelta(days=days)
            order = Order.objects.create(customer=users[name], status=status, placed_at=placed)
            order.add({product: n for product, n in zip(CATALOGUE, numbers, strict=True) if n})

    def user(self, name: str, group: str) -> User:
        """Make a user and the group; Sales is staff, and may do anything to orders on the admin site."""
        staff = group == "Sales"
        user = User.objects.create_user(name, f"{name}@example.com", PASSWORD, is_staff=staff)
        made, _ = Group.objects.get_or_create(name=group)
        if staff:
            made.permissions.set(Permission.objects.filter(content_type__app_label="orders"))
        user.groups.add(made)
        return user
