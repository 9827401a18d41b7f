"""Django's settings. Every environment variable is read and judged in `healthmon.environment`, nowhere else."""

import os
import sys
from datetime import timedelta
from pathlib import Path

import environ

from healthmon import environment
from healthmon.lib import logs, sealing

BASE_DIR = Path(__file__).resolve().parent.parent
environ.Env.read_env(BASE_DIR / ".env")  # what is already in the environment wins

try:
    ENV = environment.read(os.environ)
    _email = environ.Env.email_url_config(ENV.email_url) if ENV.email_url else {}
except ValueError as problem:
    # One sentence to whoever started us, not a traceback.
    raise SystemExit(f"healthmon: {problem}") from None

if not ENV.secret_key or not ENV.field_keys or not ENV.probe_keys:
    raise SystemExit(
        "healthmon: SECRET_KEY, HEALTHMON_FIELD_KEYS and HEALTHMON_PROBE_KEYS are needed; "
        "`make run` makes them, elsewhere set them as .env.example says."
    )

SECRET_KEY = ENV.secret_key
DEBUG = False
ALLOWED_HOSTS = ["*"]  # no link is ever built from the Host header: they all begin with HEALTHMON_BASE_URL

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",
    "accounts.console_app.ConsoleConfig",  # django.contrib.admin, on a site of ours
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.mfa",
    "django_prometheus",
    "django_celery_beat",
    "rest_framework",
    "rest_framework_simplejwt.token_blacklist",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "accounts",
    "notifications",
    "incidents",
    "monitors",
]

MIDDLEWARE = [
    "healthmon.lib.request_ids.RequestIds",
    "healthmon.lib.throttling.RateLimitHeaders",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "healthmon.lib.headers.PolicyHeaders",  # before whatever answers by itself
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "accounts.actors.Acting",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "healthmon.urls"
WSGI_APPLICATION = "healthmon.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "healthmon" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "healthmon.lib.headers.nonce",
                "accounts.signing_in.offered",
            ]
        },
    }
]

# --- database ----------------------------------------------------------------------------------------
_database = environ.Env.db_url_config(ENV.database_url)
_database["ENGINE"] = "django.db.backends.postgresql"
_database["CONN_MAX_AGE"] = 600
_database["CONN_HEALTH_CHECKS"] = True  # a connection that died with the server is replaced, not used
_database.setdefault("OPTIONS", {})
_database["OPTIONS"] |= {
    "connect_timeout": 5,
    # Every statement, lock and idle transaction has an end: a stuck one must not hold the tick up for ever.
    "options": "-c statement_timeout=30s -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s",
}
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"  # int4: two billion of a thing, and results carry the id

# --- who may come in ----------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
PASSWORD_HASHERS = [
    "accounts.hashers.Argon2",
    # Taken over from elsewhere; made anew as Argon2 at the next login.
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.BCryptSHA256PasswordHasher",
    "accounts.hashers.BCrypt",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "account_home"
LOGOUT_REDIRECT_URL = "account_login"

# Of the sign-in pages alone: how often was tried, which one-time codes were used. In the database and not in the
# broker: values are pickled, and probers, who talk to strangers, can write to the broker.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "cache",  # made by a migration of accounts
        "OPTIONS": {"MAX_ENTRIES": 100_000},  # past it a third is dropped, and with it who tried how often
    }
}

ACCOUNT_ADAPTER = "accounts.signing_in.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory" if ENV.email_url else "none"
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[healthmon] "
ACCOUNT_EMAIL_NOTIFICATIONS = True  # a new password or second factor is told to the mailbox
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = True
ACCOUNT_REAUTHENTICATION_REQUIRED = True  # before a password or a second factor changes
ACCOUNT_SESSION_REMEMBER = False
ACCOUNT_DEFAULT_HTTP_PROTOCOL = ENV.base_url.partition(":")[0]
ACCOUNT_RATE_LIMITS: dict | bool = {} if ENV.rate_limit_factor else False  # {}: those that allauth comes with

MFA_ADAPTER = "accounts.second_factor.Adapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "healthmon"
MFA_TOTP_TOLERANCE = 1  # a code that was read in the last second of its half minute is typed in the next one

SOCIALACCOUNT_ADAPTER = "accounts.single_sign_on.Adapter"
SOCIALACCOUNT_EMAIL_AUTHENTICATION = SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = ENV.oidc_match_email
SOCIALACCOUNT_PROVIDERS = {
    "openid_connect": {
        "provider_class": "accounts.single_sign_on.Provider",
        "OAUTH_PKCE_ENABLED": True,
        "APPS": [
            {
                "provider_id": "sso",
                "name": ENV.oidc_name,
                "client_id": ENV.oidc_client_id,
                "secret": ENV.oidc_client_secret,
                "settings": {"server_url": ENV.oidc_issuer},
            }
        ]
        if ENV.oidc_issuer
        else [],
    }
}

# Cookies and redirects follow the scheme people come by: a console on http://127.0.0.1 must still log in.
_over_tls = ENV.base_url.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _over_tls
SESSION_COOKIE_HTTPONLY = True
SECURE_SSL_REDIRECT = False  # the proxy in front of us does that; the health checks come by plain HTTP
SECURE_HSTS_SECONDS = 31_536_000 if _over_tls else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _over_tls
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _over_tls else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# By the beginning of the path, the longest first; docs/security.md says why each is as it is.
_page = {
    "default-src": "'none'",
    "script-src": "'nonce-{nonce}'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
_styled = {"style-src-attr": "'unsafe-inline'"}
CONTENT_SECURITY_POLICIES = {
    # The console's Alpine.js compiles the attributes of its own templates, and sets `style` attributes.
    "/admin/": _page | _styled | {"script-src": "'self' 'nonce-{nonce}' 'unsafe-eval'"},
    "/api/docs/": _page | _styled | {"script-src": "'self' 'nonce-{nonce}'"},
    "/api/": {"default-src": "'none'", "frame-ancestors": "'none'"},
    "/": _page,
}
PERMISSIONS_POLICY = ", ".join(
    [f"{feature}=()" for feature in (
        "accelerometer", "autoplay", "camera", "display-capture", "encrypted-media", "fullscreen", "geolocation",
        "gyroscope", "magnetometer", "microphone", "midi", "payment", "usb",
    )]
    + ["publickey-credentials-create=(self)", "publickey-credentials-get=(self)"]
)  # fmt: skip
CSRF_TRUSTED_ORIGINS = [ENV.base_url] if ENV.base_url else []
SILENCED_SYSTEM_CHECKS = ["security.W008"]  # SECURE_SSL_REDIRECT, see above
if not _over_tls:
    SILENCED_SYSTEM_CHECKS += ["security.W004", "security.W012", "security.W016", "security.W021"]

# --- API ------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.authentication.SessionAuthentication",
        "accounts.authentication.KeyAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.permissions.PersonOnly"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["healthmon.lib.api.BoundedJSONParser"],
    "DEFAULT_PAGINATION_CLASS": "healthmon.lib.api.CursorPages",
    "DEFAULT_METADATA_CLASS": "healthmon.lib.api.Verbs",
    "DEFAULT_FILTER_BACKENDS": ["healthmon.lib.filters.StrictFilters"],
    "DEFAULT_SCHEMA_CLASS": "accounts.schema.ApiSchema",
    "DEFAULT_THROTTLE_CLASSES": ["accounts.limits.Limits"],
    "EXCEPTION_HANDLER": "healthmon.lib.api.problem",
    "UNAUTHENTICATED_USER": None,
}
SIMPLE_JWT = {
    # A key of its own: a leaked token key must not also sign sessions and password resets.
    "SIGNING_KEY": sealing.derived(SECRET_KEY, "access and refresh tokens"),
    "ALGORITHM": "HS256",  # and no other, whatever a token's header asks for
    "ISSUER": "healthmon",
    "AUDIENCE": "healthmon-api",
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=5),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=1),
    "CHECK_REVOKE_TOKEN": True,  # changing the password ends every token
}
SPECTACULAR_SETTINGS = {
    "TITLE": "healthmon",
    "VERSION": "1",
    "DESCRIPTION": "Watches API endpoints, opens and resolves incidents, and tells the right people.",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "accounts.schema.add_components",
    ],
    "GET_LIB_DOC_EXCLUDES": "accounts.schema.undescribed",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "ENUM_NAME_OVERRIDES": {
        "MonitorStatusEnum": "monitors.models.Status",
        "IncidentStatusEnum": "incidents.models.Incident.Status",
        "DeliveryStatusEnum": "notifications.models.Delivery.Status",
        "MessageKindEnum": "notifications.models.KIND_CHOICES",
        "RoutedKindEnum": "notifications.routing.ROUTED",
        "SeverityEnum": "notifications.messages.SEVERITIES",
        "ReasonEnum": "monitors.probing.outcome.REASONS",
        "ChannelKindEnum": "notifications.transports.CHANNEL_KINDS",
        "MonitorKindEnum": "monitors.models.KINDS",
        "EventKindEnum": "incidents.models.IncidentEvent.Kind",
    },
}
# A request is read whole before it is judged, so that a body that is too long is a field error, not a reset.
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 * 1024 * 1024

# --- pages ----------------------------------------------------------------------------------------------
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # straight from the packages: no collectstatic to forget
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = ["healthmon.formats"]
UNFOLD = {
    "STYLES": [f"{STATIC_URL}accounts/console.css"],
    "SCRIPTS": [f"{STATIC_URL}accounts/console.js"],
    "ACCOUNT": {
        "navigation": [
            {"title": "Your account", "link": "/account/"},
            {"title": "Second factors", "link": "/account/2fa/"},
        ]
    },
    "SITE_TITLE": "healthmon",
    "SITE_HEADER": "healthmon",
    "SITE_SYMBOL": "vital_signs",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": f"{STATIC_URL}accounts/icon.svg"}],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
}

# --- going out --------------------------------------------------------------------------------------------
EMAIL_BACKEND = _email.get("EMAIL_BACKEND", "django.core.mail.backends.dummy.EmailBackend")
EMAIL_HOST = _email.get("EMAIL_HOST", "")
EMAIL_PORT = _email.get("EMAIL_PORT") or 25
EMAIL_HOST_USER = _email.get("EMAIL_HOST_USER") or ""
EMAIL_HOST_PASSWORD = _email.get("EMAIL_HOST_PASSWORD") or ""
EMAIL_USE_TLS = _email.get("EMAIL_USE_TLS", False)
EMAIL_USE_SSL = _email.get("EMAIL_USE_SSL", False)
EMAIL_TIMEOUT = 15
# smtp://user:password@host:587/?from=alerts@example.com
DEFAULT_FROM_EMAIL = _email.get("OPTIONS", {}).get("from") or "healthmon@localhost"
EMAIL_CONFIGURED = bool(ENV.email_url)

HEALTHMON_BASE_URL = ENV.base_url
HEALTHMON_ADMIN_EMAIL = ENV.admin_email
HEALTHMON_ADMIN_PASSWORD = ENV.admin_password
HEALTHMON_ALLOWED_NETS = ENV.allowed_nets
HEALTHMON_FIELD_KEYS = ENV.field_keys
HEALTHMON_PROBE_KEYS = ENV.probe_keys
HEALTHMON_RAW_RETENTION_DAYS = ENV.raw_retention_days
HEALTHMON_OPEN_SIGN_UP = ENV.open_sign_up
HEALTHMON_REQUIRE_MFA = ENV.require_mfa
HEALTHMON_OIDC_ISSUER = ENV.oidc_issuer
HEALTHMON_OIDC_NAME = ENV.oidc_name
HEALTHMON_MAX_MONITORS = ENV.max_monitors
HEALTHMON_MIN_INTERVAL_SECONDS = ENV.min_interval_seconds
HEALTHMON_RATE_LIMIT_FACTOR = ENV.rate_limit_factor
HEALTHMON_TRUSTED_PROXIES = ENV.trusted_proxies
HEALTHMON_BROKER_URL = ENV.broker_url

# --- seeing ------------------------------------------------------------------------------------------------
LOGGING = logs.configuration(os.environ.get("SUPERVISOR_PROCESS_NAME", "django"), pretty=sys.stderr.isatty())

if ENV.sentry_dsn:
    import sentry_sdk
    from sentry_sdk.integrations.stdlib import StdlibIntegration

    # Celery, Django and logging are found by themselves; bodies and headers stay at home, and so do the URLs that we
    # send to and the variables of a frame: tokens stand in both.
    sentry_sdk.init(
        ENV.sentry_dsn,
        send_default_pii=False,
        max_request_body_size="never",
        include_local_variables=False,
        disabled_integrations=[StdlibIntegration()],
    )
