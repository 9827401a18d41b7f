"""Who is asking: users, teams, who belongs to which as what, who is asked to join, and the keys of programs."""

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.crypto import salted_hmac

from healthmon.lib.audit import Audited


class UserManager(BaseUserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> "User":
        """People sign in with their address as they happen to write it."""
        return self.get(email=(username or "").lower())

    def create_user(self, email: str, password: str | None = None, **fields) -> "User":
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    email = models.EmailField(max_length=254, unique=True)
    name = models.CharField(max_length=100, blank=True)
    is_staff = models.BooleanField(default=False, help_text="May sign in to the admin console.")
    is_active = models.BooleanField(default=True, help_text="Unset instead of deleting.")
    date_joined = models.DateTimeField(default=timezone.now, editable=False)
    # How often all sessions were ended at once: a browser's session says after which of these it began.
    sessions_ended = models.PositiveIntegerField(default=0, editable=False)

    audited = Audited("user", machine=frozenset({"last_login", "date_joined"}), team="", label="email")
    objects = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"

    class Meta:
        constraints = [
            # Bob@ and bob@ are one mailbox; two accounts for it would be a way into somebody else's.
            models.UniqueConstraint(Lower("email"), name="user_email_any_case"),
        ]

    def __str__(self) -> str:
        return self.email

    def _get_session_auth_hash(self, secret: str | None = None) -> str:
        # Django's own knows the password alone, and logging out everywhere would leave the browsers in.
        salt = "accounts.models.User.session"
        return salted_hmac(
            salt, f"{self.password}:{self.sessions_ended}", secret=secret, algorithm="sha256"
        ).hexdigest()


class Team(models.Model):
    """The tenant: every object belongs to one."""

    name = models.CharField(max_length=100)
    slug = models.SlugField(max_length=50, unique=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    members = models.ManyToManyField(User, through="Membership", related_name="teams")

    audited = Audited("team", team="id", label="slug")

    def __str__(self) -> str:
        return self.name


class Role(models.TextChoices):
    OWNER = "owner"
    ADMIN = "admin"
    RESPONDER = "responder"
    VIEWER = "viewer"


class Membership(models.Model):
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    audited = Audited("membership")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "user"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.team}"


class AuditEntry(models.Model):
    """One row changed by somebody. Written by the database's triggers alone (`healthmon.lib.audit`), and then left as
    it is: the database refuses to change one, or to delete one that is younger than a year.

    No foreign keys: an entry outlives what it tells of.
    """

    class ActorKind(models.TextChoices):
        PERSON = "person"
        KEY = "key", "API key"
        SYSTEM = "system"
        DATABASE = "database", "SQL by hand"
        NOBODY = "nobody", "nobody who was logged in"

    class Operation(models.TextChoices):
        CREATED = "created"
        CHANGED = "changed"
        DELETED = "deleted"

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField()
    actor_kind = models.CharField(max_length=8, choices=ActorKind)
    actor = models.CharField(max_length=300)
    user_id = models.IntegerField(null=True)
    api_key_id = models.IntegerField(null=True)
    request_id = models.CharField(max_length=128)
    team = models.ForeignKey(
        Team, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, null=True, related_name="+"
    )
    kind = models.CharField(max_length=20)
    object_id = models.IntegerField()
    name = models.CharField(max_length=300)
    operation = models.CharField(max_length=7, choices=Operation)
    changes = models.JSONField()

    class Meta:
        verbose_name_plural = "audit entries"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["team", "-id"], name="audit_team_newest"),
            models.Index(fields=["kind", "object_id", "-id"], name="audit_of_object"),
            models.Index(fields=["at"], name="audit_at"),
        ]

    def __str__(self) -> str:
        return f"{self.actor} {self.operation} {self.kind} {self.object_id}"


class Invitation(models.Model):
    """An open one: accepting or withdrawing it removes the row, so a link works once."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(max_length=254)  # in small letters, as users have it
    role = models.CharField(max_length=10, choices=Role)
    token_hash = models.CharField(max_length=64, unique=True, editable=False)  # accounts.tokens.digest
    invited_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()
    # Null: the mail server never took it.
    mailed_at = models.DateTimeField(null=True, blank=True, editable=False)

    audited = Audited("invitation", machine=frozenset({"mailed_at"}), label="email")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "email"], name="invitation_once")]

    def __str__(self) -> str:
        return f"{self.email} to {self.team} as {self.role}"


class Scope(models.TextChoices):
    """What a key may do; `accounts.permissions` says what each comes to."""

    READ = "read"
    WRITE = "write"
    INCIDENTS = "incidents"


class ApiKey(models.Model):
    """
    A program's way in: `hm_<prefix>_<secret>`, of which the secret is kept as a digest alone.

    It is the team's and not its maker's: it goes on when that account is deactivated or deleted. Who is removed from
    the team takes the keys along that they made there, unless it is said otherwise.
    """

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=10, unique=True, editable=False)
    secret_hash = models.CharField(max_length=64, editable=False)  # accounts.tokens.digest
    scopes = ArrayField(models.CharField(max_length=10, choices=Scope))
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)  # to the minute
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    audited = Audited("api_key", machine=frozenset({"last_used_at"}), label="name")

    class Meta:
        verbose_name = "API key"
        indexes = [models.Index(fields=["team", "-id"], name="apikey_of_team")]
        constraints = [
            # A scope that nobody knows would allow nothing, and look as if it did.
            models.CheckConstraint(
                condition=Q(scopes__contained_by=["read", "write", "incidents"]) & ~Q(scopes=[]),
                name="apikey_scopes",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} (hm_{self.prefix}_…)"


class KeptAnswer(models.Model):
    """What a POST with an Idempotency-Key was answered, kept for a day in case it is sent again.

    The answer is sealed, and the seal is bound to caller, team and key: it may show a secret that is shown once.
    """

    id = models.BigAutoField(primary_key=True)
    caller = models.CharField(max_length=40)  # accounts.authentication.identity
    team = models.ForeignKey(Team, on_delete=models.CASCADE, null=True, related_name="+")
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)  # of the request; keyed
    sealed_answer = models.TextField()
    created_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["created_at"], name="kept_answer_age")]
        constraints = [
            models.UniqueConstraint(
                fields=["caller", "team", "key"], nulls_distinct=False, name="kept_answer_once"
            )
        ]

    def __str__(self) -> str:
        return f"answer to {self.caller}, {self.created_at}"
