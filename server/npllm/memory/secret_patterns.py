"""What secrets look like: own patterns, each with words of which one must be in the text for it to be tried at all.

Two sorts: tokens that tell by themselves what they are, and values that are secrets because of what stands before them
(`password = "..."`, `curl -u`). The named group `s` is the secret, else the whole match. Pure data; `redaction` applies
them. The formats are those that their issuers document.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from npllm.memory.secret_shapes import holds_something, is_base64, is_mixed, is_password, is_random, is_reference


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of secret.

    Attributes:
        name: stands in the placeholder.
        hints: lower-case; the pattern is tried only where one of them is in the lower-cased text.
        accepts: whether a matched value counts.
        config_only: only in configuration and prose, where values stand without quotes.
        before: must be found in what stands before the match in its line.
    """

    name: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    accepts: Callable[[str], bool] = lambda _: True
    config_only: bool = False
    before: re.Pattern[str] | None = None


def _token(name: str, hints: str, pattern: str, flags: int = 0) -> Kind:
    return Kind(name, tuple(hints.split()), re.compile(pattern, flags))


TOKENS: tuple[Kind, ...] = (
    _token("aws-key", "akia asia abia acca aroa aida", r"\b(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[A-Z0-9]{16}\b"),
    _token("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", r"\bgh[pousr]_[A-Za-z0-9]{30,}"),
    _token("github-token", "github_pat_", r"\bgithub_pat_\w{20,}"),
    _token("gitlab-token", "glpat- gldt- glrt- glft- glptt- glcbt-", r"\bgl(?:pat|dt|rt|ft|ptt|cbt)-[\w-]{16,}"),
    _token("slack-token", "xox xapp-", r"\b(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,}"),
    _token("slack-webhook", "hooks.slack.com", r"hooks\.slack\.com/\w+/(?P<s>[\w/+-]{20,})"),
    _token("stripe-key", "sk_ rk_", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{10,}"),
    _token("webhook-secret", "whsec_", r"\bwhsec_[A-Za-z0-9+/=]{16,}"),
    _token("sendgrid-key", "sg.", r"\bSG\.[\w-]{16,}\.[\w-]{16,}"),
    _token("twilio-key", "sk", r"\bSK[0-9a-f]{32}\b"),
    _token("mailgun-key", "key-", r"\bkey-[0-9a-z]{32}\b"),
    _token("mailchimp-key", "-us", r"\b[0-9a-f]{32}-us\d{1,2}\b"),
    _token("npm-token", "npm_", r"\bnpm_[A-Za-z0-9]{30,}"),
    _token("pypi-token", "pypi-", r"\bpypi-Ag[\w-]{30,}"),
    _token("anthropic-key", "sk-ant-", r"\bsk-ant-[\w-]{20,}"),
    _token("openai-key", "sk-", r"\bsk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}"),
    _token("huggingface-token", "hf_", r"\bhf_[A-Za-z0-9]{30,}"),
    _token("ai-key", "gsk_ r8_ xai- pplx-", r"\b(?:gsk_|r8_|xai-|pplx-)[A-Za-z0-9]{30,}"),
    _token("google-key", "aiza", r"\bAIza[\w-]{35}"),
    _token("google-secret", "gocspx- ya29. 1//0", r"(?:\bGOCSPX-|\bya29\.|\b1//0)[\w-]{20,}"),
    _token("azure-key", "accountkey= sharedaccesskey=",
           r"(?:Account|SharedAccess)Key=(?P<s>[\w+/=-]{20,})", re.IGNORECASE),
    _token("azure-sas", "sig=", r"(?:^|[?&;\"'\s])sig=(?P<s>[\w%+/=-]{20,})", re.MULTILINE),
    _token("azure-secret", "q~", r"(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{31,34}"),
    _token("telegram-token", ":aa", r"\b\d{8,10}:AA[\w-]{30,36}"),
    _token("discord-token", ".", r"\b[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,38}"),
    _token("discord-webhook", "api/webhooks/", r"discord(?:app)?\.com/api/webhooks/\d+/(?P<s>[\w-]{20,})"),
    _token("digitalocean-token", "_v1_", r"\bdo[opr]_v1_[a-f0-9]{40,}"),
    _token("shopify-token", "shp", r"\bshp(?:at|ca|pa|ss|ua)_[A-Fa-f0-9]{32}"),
    _token("square-token", "sq0", r"\bsq0[a-z]{3}-[\w-]{22,}"),
    _token("atlassian-token", "atatt3 atbb", r"\b(?:ATATT3|ATBB)[\w=-]{20,}"),
    _token("linear-key", "lin_api_", r"\blin_api_[A-Za-z0-9]{30,}"),
    _token("notion-token", "ntn_ secret_", r"\b(?:ntn|secret)_(?=[A-Za-z0-9]*\d)[A-Za-z0-9]{40,}"),
    _token("databricks-token", "dapi", r"\bdapi[0-9a-f]{32}"),
    _token("vault-token", "hvs. hvb. hvr.", r"\bhv[sbr]\.[\w-]{20,}"),
    _token("age-key", "age-secret-key-1", r"\bAGE-SECRET-KEY-1[A-Z0-9]{40,}"),
    _token("terraform-token", ".atlasv1.", r"\b[A-Za-z0-9]{14}\.atlasv1\.[\w-]{50,}"),
    _token("docker-token", "dckr_", r"\bdckr_[op]at_[\w-]{20,}"),
    _token("grafana-token", "glc_ glsa_", r"\bgl(?:c|sa)_[\w+/=]{30,}"),
    _token("planetscale-token", "pscale_", r"\bpscale_[a-z]+_[\w.-]{20,}"),
    _token("supabase-key", "sbp_ sb_secret_", r"\b(?:sbp|sb_secret)_[\w-]{20,}"),
    _token("sentry-token", "sntry", r"\bsntry[su]_[\w+/=-]{30,}"),
    _token("figma-token", "figd_", r"\bfigd_[\w-]{20,}"),
    _token("postman-key", "pmak-", r"\bPMAK-[a-f0-9]{24}-[a-f0-9]{30,}"),
    _token("rubygems-key", "rubygems_", r"\brubygems_[a-f0-9]{40,}"),
    _token("doppler-token", "dp.", r"\bdp\.(?:pt|st|sa|ct|scim|audit)\.[A-Za-z0-9.]{30,}"),
    _token("pulumi-token", "pul-", r"\bpul-[a-f0-9]{40}"),
    _token("newrelic-key", "nrak-", r"\bNRAK-[A-Z0-9]{20,}"),
    _token("dynatrace-token", "dt0", r"\bdt0[a-z]\d{2}\.[A-Z0-9]{24}\.[A-Z0-9]{60,}"),
    _token("dropbox-token", "sl.", r"\bsl\.[\w-]{60,}"),
    _token("artifactory-key", "akcp", r"\bAKCp\d\w{50,}"),
    _token("heroku-key", "hrku-", r"\bHRKU-[\w-]{30,}"),
    _token("jwt", "eyj", r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?"),
    _token("password-hash", "$apr1$ $2a$ $2b$ $2y$ $5$ $6$ $y$ $argon2",
           r"\$(?:apr1|2[aby]|5|6|y|argon2(?:id?|d))\$[^\s:\"']{20,}"),
)  # fmt: skip

_BODY = r"""(?:[\s"'`+\#*>,\\]|(?:Proc-Type|DEK-Info|Version|Comment):[^\n]*|[A-Za-z0-9+/=]{16,}
    |[A-Za-z0-9+/=]{1,80}(?=[\s"'`+,\\nr]{0,12}-----END))*"""
BLOCKS: tuple[Kind, ...] = (
    Kind("private-key", ("private key",),
         re.compile(rf"-----BEGIN[ ][A-Z0-9 ]*PRIVATE[ ]KEY[A-Z ]*-----(?P<s>{_BODY})", re.VERBOSE), holds_something),
    # A window into a document may begin or end within a key.
    _token("private-key", "private key", r"(?P<s>[A-Za-z0-9+/=]{4,80})"
            r"[\s\"'`+,\\nr]{0,12}-----END [A-Z0-9 ]*PRIVATE KEY"),
    Kind(
        "base64-block",
        (),
        re.compile(r"^[ \t\"'`#*>]*(?P<s>[A-Za-z0-9+/]{40,}={0,2}"
            r"(?:[ \t\"'`+,\\nr]*\n[ \t\"'`#*>+]*[A-Za-z0-9+/]{40,}={0,2})+)", re.MULTILINE),
        is_base64,
    ),
)  # fmt: skip

_STRONG = r"(?:pass(?:word|wd|phrase|code)|pwd|secret)"
_PASS = r"(?:pass(?:word|wd|phrase|code)|pwd)"
_WEAK = (
    r"(?:token|api[_.-]?key|(?:auth|access|account|service|client|private|signing|encryption|master|shared)[_.-]?key"
    r"|secret|credentials?|bearer|license[_.-]?key|webhook|apikey|auth|salt|key)"
)
_END = r"[\w]{0,12}"
_IS = r"[\"'`\]]{0,2}(?:[ \t]*:[ \t]*[\w.|\[\] ]{1,30}(?==))?[ \t]*(?:={1,3}|!==?|:=|=>|:)[ \t]*"
_QUOTED = r"(?:[rbufL@]{0,2})(?P<q>[\"'`])(?P<s>(?:\\.|(?!(?P=q))[^\n\\])+)"  # its end may lie beyond the window
_HINTS = ("pass", "pwd", "secret")
_WEAK_HINTS = ("token", "key", "auth", "secret", "credential", "bearer", "webhook", "salt")


def _value(
    name: str,
    hints: tuple[str, ...],
    pattern: str,
    accepts: Callable[[str], bool] = is_password,
    *,
    config_only: bool = False,
) -> Kind:
    return Kind(name, hints, re.compile(pattern, re.IGNORECASE | re.MULTILINE), accepts, config_only)


def _not_reference(value: str) -> bool:
    return not is_reference(value)


VALUES: tuple[Kind, ...] = (
    _value("aws-secret", ("aws",), r"aws[\w.-]{0,20}(?:secret|key)[\w.-]{0,20}[\"'\]]{0,2}[ \t]*[:=]+>?[ \t]*[\"'`]?"
           r"(?P<s>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])"),
    _value("url-password", ("://",), r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'`<>]*:(?P<s>[^\s/@\"'`<>]+)@",
           _not_reference),
    _value("url-token", ("://",), r"://(?P<s>[\w-]{20,})(?::x-oauth-basic)?@"),
    _value("curl-password", ("curl",), r"\bcurl\b[^\n]*?[ \t](?:-u|--user|--proxy-user)"
           r"[ \t=]*[\"']?[^\s:\"']+:(?P<s>[^\s\"']+)",
           _not_reference),
    _value("auth-header", ("authorization",), r"authorization[\"']?\]?[ \t]*[:=,]"
           r"[ \t]*[\"'`]?(?:bearer|basic|token|digest|apikey)"
           r"[ \t]+(?P<s>[^\s\"'`,;)]{6,})", _not_reference),
    _value("bearer-token", ("bearer",), r"\bbearer[ \t]+(?P<s>[\w.~+/=-]{20,})", is_random),
    _value("password", _HINTS, rf"{_PASS}{_END}{_IS}{_QUOTED}"),
    _value("secret", ("secret",), rf"secrets?(?:_?key|_?value|_\w{{0,12}}|\d*){_IS}(?:[rbufL@]{{0,2}})"
           rf"(?P<q>[\"'`])(?P<s>(?:(?!(?P=q))[^\n\s\\])+)"),
    _value("password", _HINTS, rf"{_STRONG}[\"']?\)?[ \t]*,[ \t]*[\"'](?P<s>[^\n\"']+)", is_mixed),
    _value("password", _HINTS, rf"{_STRONG}\([ \t]*[\"'](?P<s>[^\n\"']+)", is_mixed),
    _value("password", _HINTS, rf"{_STRONG}{_END}[\"'\]]{{0,2}}[ \t]*[:=]"
           rf"[ \t]*(?P<s>[^\s\"'`(){{}}\[\],;<>.]{{8,}})", is_mixed),
    _value("password", _HINTS, r"[;\"'][ \t]*(?:password|pwd)[ \t]*=[ \t]*(?P<s>[^;\"'\n]+)"),
    _value("password", _HINTS, rf"--(?:\w+-)?{_PASS}(?:[ \t=]|[\"'],[ \t]*[\"'])[\"']?(?P<s>[^\s\"'`,;)\]]{{4,}})"),
    _value("password", ("mysql", "sshpass", "docker login", "mariadb"),
           r"\b(?:(?:mysql|mariadb)"
           r"\w*\b[^\n]*?[ \t]-p|sshpass[ \t]+-p[ \t]*|docker[ \t]+login\b[^\n]*?[ \t]-p[ \t]+)[\"']?"
           r"(?P<s>[^\s\"'-][^\s\"']*)", _not_reference),
    _value("password", ("password",), r"\b(?:login|user|username)"
           r"[ \t]+\S+\s+password[ \t]+(?P<s>[^\s\"']+)", _not_reference),
    _value("password", (":",), r"^[^:\s\"'(]+:(?:\d{4,5}|\*):[^:\s\"']+:[^:\s\"']+:(?P<s>[^:\s\"']+)$", _not_reference),
    _value("password", _HINTS, rf"<(?!secret:)(?:\w+:)?\w*{_STRONG}\w*(?:[ \t][^>/]*)?>(?P<s>[^<\n]+)(?:</|$)"),
    _value("password", _HINTS, rf"(?:key|name)=[\"'][\w.:-]*{_STRONG}[\w.-]*[\"'][ \t]+value=[\"'](?P<s>[^\"'\n]+)"),
    _value("password", _HINTS, rf"^[ \t]*(?:(?:export|-|env|set|arg)[ \t]+)?[\"']?[\w.-]*{_STRONG}{_END}"
           rf"[\"']?[ \t]*[:=][ \t]*"
           r"(?P<s>[^\s\"'#][^\n#]*?)[ \t]*(?:[ \t]#[^\n]*)?$", config_only=True),
    _value("password", _HINTS, rf"^[ \t]*(?:env|set)[ \t]+\w*{_STRONG}\w*[ \t]+(?P<s>[^\s\"'=]+)"
           rf"[ \t]*$", config_only=True),
    Kind("key", _WEAK_HINTS, re.compile(r"[:=]>?[ \t]*(?:[rbufL@]{0,2}"
         r"[\"'`])?(?P<s>[^\s\"'`,;(){}\[\]<>:=]{16,}+={0,2})(?!\()"), is_random,
         before=re.compile(rf"{_WEAK}{_END}[\"'`\]]{{0,2}}"
            rf"(?:[ \t]*:[ \t]*[\w.|\[\] ]{{1,30}})?[ \t]*[!:=]{{0,2}}$", re.IGNORECASE)),
    _value("key", _WEAK_HINTS, rf"--(?:\w+-)?{_WEAK}(?:[ \t=]|[\"'],[ \t]*[\"'])"
           rf"[\"']?(?P<s>[^\s\"'`,;)\]]+)", is_random),
    _value("key", _WEAK_HINTS, rf"<(?!secret:)(?:\w+:)?\w*{_WEAK}\w*(?:[ \t][^>/]*)?>(?P<s>[^<\s]+)</", is_random),
)  # fmt: skip

KINDS = (*BLOCKS, *TOKENS, *VALUES)
