"""Questions about rights: `kubectl auth can-i`, `auth whoami`, and what others ask about others.

Answered, never stored. Source: the `authorization.k8s.io/v1` and `authentication.k8s.io/v1` APIs.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from volagent.api.auth import User
from volagent.api.rbac import Authorizer
from volagent.client.contract import BadRequest, Forbidden, NotFound, Unauthorized
from volagent.objects.meta import Document
from volagent.objects.rbac import Action

AUTHORIZATION, AUTHENTICATION = "authorization.k8s.io", "authentication.k8s.io"
PLURALS = {
    (AUTHORIZATION, "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    (AUTHORIZATION, "selfsubjectrulesreviews"): "SelfSubjectRulesReview",
    (AUTHORIZATION, "subjectaccessreviews"): "SubjectAccessReview",
    (AUTHORIZATION, "localsubjectaccessreviews"): "LocalSubjectAccessReview",
    (AUTHENTICATION, "tokenreviews"): "TokenReview",
    (AUTHENTICATION, "selfsubjectreviews"): "SelfSubjectReview",
}
"""Group and plural → kind."""
_SELF = frozenset({"SelfSubjectAccessReview", "SelfSubjectRulesReview", "SelfSubjectReview"})

Identify = Callable[[str], Awaitable[User | None]]


class Reviews:
    """Answers reviews."""

    def __init__(self, authorizer: Authorizer, identify: Identify) -> None:
        """`identify` knows bearer tokens; it raises `Unauthorized` for a bad one."""
        self._authorizer = authorizer
        self._identify = identify

    async def answer(self, user: User, parts: list[str], body: Any) -> Document:
        """The review with its status. Raises `Forbidden`, `BadRequest`, `NotFound`."""
        namespace, plural = "", parts[3]
        if len(parts) == 6 and parts[3] == "namespaces":
            namespace, plural = parts[4], parts[5]
        kind = PLURALS.get((parts[1], plural))
        if kind is None:
            raise NotFound("the server could not find the requested resource")
        if not isinstance(body, dict):
            raise BadRequest(f"the body is no {kind}")
        if kind not in _SELF:
            action = Action("create", parts[1], plural, namespace)
            if not self._authorizer.may(user, action):
                raise Forbidden(
                    f'{plural}.{parts[1]} is forbidden: User "{user.name}" cannot create resource'
                    f' "{plural}" in API group "{parts[1]}"'
                )
        spec = body.get("spec") or {}
        review = {"kind": kind, "apiVersion": f"{parts[1]}/v1", "metadata": {}, "spec": spec}
        match kind:
            case "SelfSubjectReview":
                status = {"userInfo": _describe(user)}
            case "TokenReview":
                status = await self._review_token(str(spec.get("token", "")))
            case "SelfSubjectRulesReview":
                status = self._list_rules(user, str(spec.get("namespace", "")))
            case "SelfSubjectAccessReview":
                status = self._decide(user, spec)
            case _:
                groups = frozenset(spec.get("groups") or ())
                status = self._decide(User(str(spec.get("user", "")), groups), spec)
        return {**review, "status": status}

    def _decide(self, user: User, spec: Document) -> Document:
        action = _action_of(spec)
        if self._authorizer.may(user, action):
            return {"allowed": True}
        return {"allowed": False, "reason": "no role bound to the user allows it"}

    def _list_rules(self, user: User, namespace: str) -> Document:
        resources: list[Document] = []
        paths: list[Document] = []
        if user.is_admin:
            resources.append({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
            paths.append({"verbs": ["*"], "nonResourceURLs": ["*"]})
        for rule in self._authorizer.rules_of(user, namespace):
            if rule.non_resource_urls:
                paths.append({
                    "verbs": rule.verbs or [], "nonResourceURLs": rule.non_resource_urls,
                })  # fmt: skip
            else:
                listed = {
                    "verbs": rule.verbs or [], "apiGroups": rule.api_groups or [],
                    "resources": rule.resources or [],
                }  # fmt: skip
                if rule.resource_names:
                    listed["resourceNames"] = rule.resource_names
                resources.append(listed)
        return {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False}

    async def _review_token(self, token: str) -> Document:
        try:
            user = await self._identify(token)
        except Unauthorized as error:
            return {"authenticated": False, "error": error.message}
        if user is None:
            return {"authenticated": False}
        return {"authenticated": True, "user": _describe(user)}


def _action_of(spec: Document) -> Action:
    """Raises `BadRequest`."""
    about, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(path, dict):
        return Action(str(path.get("verb", "")), path=str(path.get("path", "")))
    if not isinstance(about, dict):
        raise BadRequest("spec: give resourceAttributes or nonResourceAttributes")
    resource, subresource = str(about.get("resource", "")), about.get("subresource")
    return Action(
        str(about.get("verb", "")),
        str(about.get("group", "")),
        f"{resource}/{subresource}" if subresource else resource,
        str(about.get("namespace", "")),
        str(about.get("name", "")),
    )


def _describe(user: User) -> Document:
    return {"username": user.name, "groups": sorted(user.groups)}
