"""What is alike in all operations of the OpenAPI schema, said once: errors, the team, the login."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import build_bearer_security_scheme_object, get_lib_doc_excludes

from accounts.idempotency import RetrySafe
from accounts.scoping import TeamInPath, TeamScoped
from healthmon.lib.api import StrictModelSerializer, StrictSerializer
from healthmon.lib.etags import CHANGING, Versioned
from healthmon.lib.idempotency import Idempotent

COMPONENTS = {
    "parameters": {
        "Team": {
            "name": "X-Team",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "Slug of the team this is about. Needed by those who are on several.",
        },
        "IdempotencyKey": {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
            "description": "Sent again within 24 hours, the request is not done again but answered as it was.",
        },
        "IfMatch": {
            "name": "If-Match",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "The ETag that was read: 412 if somebody has changed it since.",
        },
        "IfNoneMatch": {
            "name": "If-None-Match",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "The ETag that was read: 304 if it is still the same.",
        },
    },
    "responses": {
        "Problem": {
            "description": "It was refused or went wrong (RFC 9457).",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    },
    "schemas": {
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "errors", "request_id"],
            "properties": {
                "type": {"type": "string", "format": "uri-reference"},
                "title": {"type": "string", "description": "The HTTP status in words."},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "request_id": {
                    "type": ["string", "null"],
                    "description": "Of this request, as in X-Request-ID. What it set off is logged under it.",
                },
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["pointer", "detail"],
                        "properties": {
                            "pointer": {
                                "type": "string",
                                "description": "JSON pointer to what is wrong, such as `#/create/3/url`.",
                            },
                            "detail": {"type": "string"},
                        },
                    },
                },
            },
        }
    },
}


class ApiSchema(AutoSchema):
    def get_operation(self, *args: Any, **kwargs: Any) -> dict | None:
        operation = super().get_operation(*args, **kwargs)
        if operation:
            operation["responses"]["default"] = {"$ref": "#/components/responses/Problem"}
            if isinstance(self.view, TeamScoped) and not isinstance(self.view, TeamInPath):
                _takes(operation, "Team")
            if isinstance(self.view, Idempotent) and self.method == "POST":
                _takes(operation, "IdempotencyKey")
            if isinstance(self.view, Versioned) and self.method in CHANGING:
                _takes(operation, "IfMatch")
            if isinstance(self.view, Versioned) and getattr(self.view, "action", None) == "retrieve":
                _takes(operation, "IfNoneMatch")
                operation["responses"]["304"] = {"description": "It is what If-None-Match names."}
        return operation


def _takes(operation: dict, parameter: str) -> None:
    operation.setdefault("parameters", []).append({"$ref": f"#/components/parameters/{parameter}"})


def add_components(result: dict, generator: Any, request: Any, public: bool) -> dict:
    """A drf-spectacular post-processing hook."""
    for kind, named in COMPONENTS.items():
        result["components"].setdefault(kind, {}).update(named)
    return result


def undescribed() -> list[type]:
    """Classes whose docstrings are for us and not for whoever reads the schema of a view built on them."""
    return [
        *get_lib_doc_excludes(), TeamScoped, TeamInPath, RetrySafe, Idempotent, Versioned, StrictSerializer,
        StrictModelSerializer,
    ]  # fmt: skip


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.authentication.SessionAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict:
        return build_bearer_security_scheme_object("Authorization", "Bearer", bearer_format="JWT")


class KeyScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.authentication.KeyAuthentication"
    name = "key"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Api-Key hm_…`, a key of one team with the scopes it was made with.",
        }
