"""Some two hundred more services, through the `apprise` library. https://github.com/caronc/apprise/wiki

The library does much that a URL from a user must not make our host do: it writes to syslog and desktops, reads files,
speaks SMTP, MQTT and IRC, waits, and follows the environment's proxies. So only the schemes listed here are taken,
all of services that it reaches through `requests`, and its requests are made on a line of ours (guarded_requests). A
scheme that a new version brings is refused until somebody has read its code and listed it.
"""

import functools
import logging
import re
import warnings
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import apprise
from apprise.plugins import N_MGR
from django.conf import settings

from healthmon.lib.addresses import Guard
from healthmon.lib.guarded_requests import Wire
from healthmon.lib.outgoing import Answer
from notifications.transports.base import DeliveryFailed, Envelope, Setting, Transport
from notifications.transports.http import TIMEOUT_SECONDS, judge

URL_CHARS = 2048

_SELF_HOSTED = """
    apprise apprises bark barks emby embys enigma2 enigma2s evolution evolutions flowtriq flowtriqs form forms goalert
    goalerts gorush gorushs gotify gotifys hassio hassios humhub humhubs jellyfin jellyfins json jsons kodi kodis
    mastodon mastodons misskey misskeys mmost mmosts ncloud nclouds nctalk nctalks onebot onebots parsep parseps
    pinglet pinglets pjet pjets rocket rockets session sessions signal signals smseagle smseagles sogs synology
    synologys toot toots xbmc xbmcs xml xmls
"""
_HOSTED = """
    46elks atalk azure betterstack bluesky brevo bsky bulksms bulkvs burstsms chanify clickatell clicksend cliq cm d7sms
    dapnet dingtalk dot eight00com elks exotel feishu firehydrant flock fluxer fluxers freemobile gchat github
    groundmail groupme gupshup httpsms ifttt ilert incidentio infobip jira join kakao kakaotalk kaleyra kavenegar klr
    kook kudosity kumulos lametric lametrics lark lauther lfg line mailersend mailgun matrix matrixs mobilemessage
    mobilemsg msg91 msgbird nexmo notica noticas notifiarr notifico notificos notifyre ntfy ntfys o365 octopush
    onesignal opsgenie pagerduty pagertree pbul pingram plivo postmark pover prowl psafer psafers push pushdeer
    pushdeers pushed pushme pushplus pushward pushy qq reddit resend revolt ringc ryver schan sendgrid sendpulse
    serwersms ses seven sfr signalgrid signl4 simplepush sinch smsc smsmanager smsmgr smstunnel smtp2go sns sparkpost
    spike splunk spugpush spush squadcast stackfield strmlabs telesign telnyx threema trigv trigvs tweet twilio twist
    twitter viber victorops voipms vonage webex wechat wecom wecombot whapi whatsapp wpush wxpusher wxteams x xmatters
    youlmk zalo zcliq zohocliq zoom zulip
"""
SELF_HOSTED = frozenset(_SELF_HOSTED.split())  # its host is where it is dialled
HOSTED = frozenset(_HOSTED.split())  # its host may be a token
SCHEMES = SELF_HOSTED | HOSTED
# These read templates from files, or do not dial through requests.
OWN_KINDS = {
    "discord": "discord", "mailto": "email", "mailtos": "email", "slack": "slack", "tgram": "telegram",
    "workflow": "teams", "workflows": "teams",
}  # fmt: skip

# It logs what it sends and where to, tokens included. A level may be set again by a configuration, a filter stays.
logging.getLogger("apprise").addFilter(lambda record: False)


def _scheme(url: str) -> str:
    found = re.match(r"([A-Za-z0-9]{1,32})://", url)
    return found[1].lower() if found else ""


def _a_url(given: Any) -> str:
    if not isinstance(given, str) or not given.isprintable() or " " in given or len(given) > URL_CHARS:
        raise ValueError(f"An apprise URL of at most {URL_CHARS:,} characters without spaces is needed.")
    scheme = _scheme(given)
    if scheme in OWN_KINDS:
        raise ValueError(f"Make a channel of the kind {OWN_KINDS[scheme]} for that.")
    if scheme not in SCHEMES:
        raise ValueError(f"{scheme or 'That'} is not among the services that are used through apprise.")
    guard = Guard(settings.HEALTHMON_ALLOWED_NETS)
    with Wire(guard, TIMEOUT_SECONDS):  # none dials when it is made; should one begin to, it is guarded
        service = _service(given)
    if not service.verify_certificate:
        raise ValueError("verify=no is not done: a certificate that cannot be verified is no protection.")
    # Of several the second may fail, and the first is told again with it. Not every plugin counts.
    if len(service) != 1:
        raise ValueError(f"It names {len(service)} to tell; make a channel for each.")
    if scheme in SELF_HOSTED and (refusal := guard.url_refusal(f"http://{_host(given)}/")):
        raise ValueError(f"This URL may not be sent to: {refusal}. HEALTHMON_ALLOWED_NETS opens ranges.")
    return given


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def _service(url: str) -> apprise.NotifyBase:
    """Return apprise's plugin for a URL of a listed scheme. Raises ValueError with a sentence."""
    _load()
    service = apprise.Apprise.instantiate(url, asset=_asset())
    if service is None or not service.enabled:
        raise ValueError(
            "apprise does not understand this URL; its wiki shows what each service's looks like."
        )
    # Trying again and slowing down are the outbox's; a thread that sleeps in here outlives its lease.
    service.retry = 0
    service.throttle = lambda *_, **__: None  # type: ignore[method-assign]
    return service


@functools.cache
def _load() -> None:
    # 0.2 s and 18 MB, so not before the first use; one of its modules imports what Python is about to drop.
    with warnings.catch_warnings(action="ignore"):
        N_MGR.load_modules()


def _asset() -> apprise.AppriseAsset:
    return apprise.AppriseAsset(
        app_id="healthmon",
        app_desc="healthmon",
        app_url=settings.HEALTHMON_BASE_URL,
        storage_mode=apprise.PersistentStoreMode.MEMORY,  # nothing on our disk
        plugin_paths=[],
        interpret_emojis=False,
        interpret_escapes=False,
        secure_logging=True,
    )


class Apprise(Transport):
    """A failure is final when the last answer was: 4xx but 429, as with every other channel.

    What was answered is not shown: it may echo a token that stands in the URL.
    """

    settings = (
        Setting(
            "url", _a_url, "an apprise URL of one place to tell, such as gotifys://host/token.", secret=True
        ),
    )

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        self.timeout = timeout

    def destination(self, config: Mapping[str, Any]) -> str:
        scheme = _scheme(config["url"])
        return _host(config["url"]) if scheme in SELF_HOSTED else f"apprise {scheme}"

    def send(self, envelope: Envelope, config: Mapping[str, Any]) -> None:
        taken, bug = False, ""
        with Wire(Guard(settings.HEALTHMON_ALLOWED_NETS), self.timeout) as wire:
            try:
                taken = _service(config["url"]).notify(
                    title=envelope.subject,
                    body=envelope.text or envelope.subject,
                    notify_type=_type(envelope),
                    body_format=apprise.NotifyFormat.TEXT,
                    overflow=apprise.OverflowMode.TRUNCATE,
                )
            except Exception as problem:  # noqa: BLE001 - whatever it is, its text may hold the URL
                bug = type(problem).__name__
        if not taken:
            _judge(wire, bug)


def _judge(wire: Wire, bug: str) -> None:
    """This will raise DeliveryFailed for a send that apprise says did not work out."""
    if wire.refused:
        raise DeliveryFailed(f"The address may not be dialled: {wire.refused}")
    if wire.expired:
        raise DeliveryFailed(f"There was no answer within {wire.timeout:g} s.")
    if wire.problem:
        raise DeliveryFailed(wire.problem)
    if wire.status_code:
        judge(Answer(wire.status_code, "", wire.retry_after_seconds))
        raise DeliveryFailed(f"It answered {wire.status_code}, but apprise says that it was not taken.")
    raise DeliveryFailed(f"apprise could not send it ({bug or 'it says no more'}).")


def _type(envelope: Envelope) -> apprise.NotifyType:
    if envelope.kind in ("resolved", "recovered"):
        return apprise.NotifyType.SUCCESS
    words = {"critical": apprise.NotifyType.FAILURE, "warning": apprise.NotifyType.WARNING}
    return words.get(envelope.severity, apprise.NotifyType.INFO)
