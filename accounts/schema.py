"""What is alike in all operations of the OpenAPI schema, said once: errors, the team, the login."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import build_bearer_security_scheme_object, get_lib_doc_excludes

from accounts.scoping import TeamScoped
from healthmon.lib.api import StrictModelSerializer, StrictSerializer

COMPONENTS = {
    "parameters": {
        "Team": {
            "name": "X-Team",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "Slug of the team this is about. Needed by those who are on several.",
        }
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
            "required": ["type", "title", "status", "detail", "errors"],
            "properties": {
                "type": {"type": "string", "format": "uri-reference"},
                "title": {"type": "string", "description": "The HTTP status in words."},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
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
            if isinstance(self.view, TeamScoped):
                operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/Team"})
        return operation


def add_components(result: dict, generator: Any, request: Any, public: bool) -> dict:
    """A drf-spectacular post-processing hook."""
    for kind, named in COMPONENTS.items():
        result["components"].setdefault(kind, {}).update(named)
    return result


def undescribed() -> list[type]:
    """Classes whose docstrings are for us and not for whoever reads the schema of a view built on them."""
    return [*get_lib_doc_excludes(), TeamScoped, StrictSerializer, StrictModelSerializer]


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.authentication.SessionAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict:
        return build_bearer_security_scheme_object("Authorization", "Bearer", bearer_format="JWT")
