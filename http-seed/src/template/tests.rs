//! Templates against values that try to break out of them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn problems(text: &str, values: &Value) -> Vec<String> {
    match render("t", text, values) {
        Err(RenderError::Undefined { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn an_undefined_variable_is_an_error_wherever_it_stands() {
    for text in [
        "{{ nosuch | yaml }}",
        "{% if nosuch %}x{% endif %}",
        "{% if known and not nosuch %}x{% endif %}",
        "{% if known %}x{% elif nosuch %}{% endif %}",
        "{% if false %}{{ nosuch | sh }}{% endif %}",
        "{% if \"a\" in nosuch %}{% endif %}",
        "{% if nosuch is defined %}{% endif %}",
        "{% if known is containing(nosuch) %}{% endif %}",
        "{% for x in nosuch %}{% endfor %}",
        "{% for x in list | slice(end=nosuch) %}{% endfor %}",
        "{% for x in list %}{% else %}{{ nosuch | sh }}{% endfor %}",
        "{% for x in list %}{% endfor %}{% set nosuchs = 1 %}{{ nosuch | sh }}",
        "{{ known | default(value=nosuch) | yaml }}",
        "{{ nosuch | default(value=1) | yaml }}",
        "{{ table.nosuch | yaml }}",
        "{{ table[nosuch] | yaml }}",
        "{{ 1 + nosuch | yaml }}",
        "{{ \"a\" ~ nosuch | yaml }}",
        "{{ [nosuch] | yaml }}",
        "{{ range(end=nosuch) | yaml }}",
        "{{ known.nosuch | yaml }}",
        "{% set local = nosuch %}",
        "{% if known %}{% set nosuch = 1 %}{% endif %}{{ nosuch | yaml }}",
        "{% filter replace(from=nosuch, to=\"\") %}{% endfilter %}",
        "{% macro m(a) %}{{ nosuch | sh }}{% endmacro m %}",
        "{% macro m(a) %}{{ a | sh }}{% endmacro m %}{{ self::m(a=nosuch) }}",
        "{% for row in rows %}{% if row.nosuch %}{% endif %}{% endfor %}",
        "{% for x in list %}{{ loop.nosuch }}{% endfor %}",
        "{{ loop.nosuch }}",
    ] {
        let values = json!({ "known": false, "table": {}, "list": ["a"], "rows": [{ "nosuch": 1 }, {}] });
        let error = render("t", text, &values).expect_err(text);
        let named = matches!(&error, RenderError::Undefined { problems, .. } if problems.len() == 1
            && problems[0].kind == ProblemKind::Undefined && problems[0].name.contains("nosuch"));
        assert!(named, "{text}: {error}");
    }
}

#[test]
fn every_undefined_name_is_told_with_its_place() {
    let text = "a {{ known | sh }}\n{# {{ b }} #}{% if c %}\n  {{ d.e | sh }}{% endif %} {{ known.f | nofilter | sh }}\n\
                {% if x is weird %}{{ get_env(name=\"HOME\") | sh }}{% endif %}{% include \"x\" %}";
    insta::assert_snapshot!(problems(text, &json!({ "known": {}, "x": 1 })).join("\n"), @r"
    2:20: `c` is not defined
    3:6: `d.e` is not defined
    3:32: `known.f` is not defined
    3:42: there is no filter `nofilter`
    4:12: there is no test `weird`
    4:23: there is no function `get_env`
    4:65: `include`: a template can't take in another one
    ");
    let error = render("ks.cfg", "\n\n  {{ nosuch | ks }}", &json!({})).expect_err("undefined");
    assert_eq!(error.to_string(), "ks.cfg:3:6: `nosuch` is not defined");
}

#[test]
fn what_is_optional_is_null_or_asked_for_as_a_tables_member() {
    let text = "{% if gateway %}{{ gateway.address | sh }}{% endif %}{% if table.mtu is defined %}x{% endif %}\
                {{ table.dns | default(value=\"none\") | sh }}";
    assert_eq!(render("t", text, &json!({ "gateway": null, "table": {} })).expect("renders"), "'none'");
}

#[test]
fn names_made_by_the_template_are_no_undefined_variables() {
    for (text, rendered) in [
        (
            "{% set a = known %}{% for x in list %}{{ x | sh }}{{ a | sh }}{{ loop.index }}{% endfor %}",
            "'1''k'1'2''k'2",
        ),
        ("{% for k, v in table %}{{ k | sh }}{{ v | sh }}{% endfor %}", "'a''1'"),
        ("{% for row in rows %}{% for n in row.names %}{{ n | sh }}{% endfor %}{% endfor %}", "'x''y'"),
        ("{% if known %}{% set a = 1 %}{% else %}{% set a = 2 %}{% endif %}{{ a | sh }}", "'1'"),
        ("{% macro m(a, b=\"z\") %}{{ a | sh }}{{ b | sh }}{% endmacro m %}{{ self::m(a=known) }}", "'k''z'"),
        (
            "{{ table.a | sh }}{{ table[\"a\"] | sh }}{{ list.0 | sh }}{{ list[1] | sh }}{{ table[key] | sh }}",
            "'1''1''1''2''1'",
        ),
        ("{% raw %}{{ nosuch }}{% endraw %}{# {{ nosuch }} #}", "{{ nosuch }}"),
        ("{% for i in range(end=2) %}{{ i }}{% endfor %}", "01"),
    ] {
        let rows = json!([{ "names": ["x"] }, { "names": ["y"] }]);
        let values =
            json!({ "known": "k", "list": ["1", "2"], "table": { "a": "1" }, "rows": rows, "key": "a" });
        assert_eq!(render("t", text, &values).expect(text), rendered, "{text}");
        assert_eq!(render("t", text, &values).expect(text), rendered, "again: {text}");
    }
}

#[test]
fn a_template_reaches_neither_the_environment_nor_the_clock_nor_other_files() {
    for text in [
        "{{ get_env(name=\"HOME\") | sh }}",
        "{{ now() | sh }}",
        "{{ get_random(end=9) | sh }}",
        "{% include \"/etc/passwd\" %}",
        "{% import \"/etc/passwd\" as x %}",
        "{% extends \"/etc/passwd\" %}",
        "{{ __tera_context | sh }}",
    ] {
        assert!(render("t", text, &json!({})).is_err(), "{text}");
    }
}

#[test]
fn lint_tells_what_a_value_could_break_out_of() {
    let text = "{{ a }}{{ b | upper }}{{ c | yaml }}{% if a %}{{ d }}{% endif %}\n\
                x: \"{{ a | yaml }}\"\necho \"hi {{ a | sh }}\"; echo 'it' {{ a | sh }}\nx: mid {{ a | yaml }}\n\
                {{ a | sh | lower }} {{ a ~ b }} {{ 1 + 2 }} {{ loop.index }} {{ \"literal\" }}\n\
                {% filter upper %}{{ a | sh }}{% endfilter %}{% filter sh %}{{ a }}{% endfilter %}\n\
                <a b=\"{{ a | xml }}\">\n- {{ a | yaml }}: {{ b | yaml }}\nx:{{ a | yaml }}";
    let found: Vec<String> = lint("t", text).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(found.join("\n"), @r"
    t:1:1: `{{ a }}` goes in as it is, so its value can break out of its place
    t:1:8: `{{ b | upper }}` goes in as it is, so its value can break out of its place
    t:1:23: this insertion stands within a YAML value, where its quotes mean nothing
    t:1:47: `{{ d }}` goes in as it is, so its value can break out of its place
    t:2:5: the filter `yaml` puts quotes where they are needed, and these end its own
    t:3:10: the filter `sh` puts quotes where they are needed, and these end its own
    t:4:8: this insertion stands within a YAML value, where its quotes mean nothing
    t:5:1: `{{ a | sh | lower }}` goes in as it is, so its value can break out of its place
    t:5:22: `{{ a ~ b }}` goes in as it is, so its value can break out of its place
    t:6:1: the filter `upper` changes values that were made safe before it
    t:9:3: this insertion stands within a YAML value, where its quotes mean nothing
    ");
}

#[test]
fn lint_tells_where_a_template_can_not_be_read() {
    let found = lint("ks.cfg", "text\n{{ a | }}\n");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].to_string(), "ks.cfg:2:8: the template can't be read");
    assert!(found[0].help.contains("{{ a | }}"), "{}", found[0].help);
}

#[test]
fn a_template_that_would_never_end_or_fill_the_memory_is_told_with_its_line() {
    let macros: String = (1..40)
        .map(|n| {
            let call = format!("{{{{ self::m{}() }}}}", n - 1);
            format!("{{% macro m{n}() %}}{call}{call}{{% endmacro m{n} %}}\n")
        })
        .collect();
    let sum = format!("\n{{{{ 1{} }}}}", " + 1".repeat(300));
    let call = format!("\n{{{{ {}1{} }}}}", "range(end=".repeat(9), ")".repeat(9));
    for (text, told) in [
        (
            "x\n{% macro a() %}{{ self::a() | ks }}{% endmacro a %}{{ self::a() | ks }}",
            "t:2:10: the macro `a` leads back to itself",
        ),
        (
            "{% macro a() %}{{ self::b() | ks }}{% endmacro a %}\n{% macro b() %}{{ self::a() | ks }}{% endmacro b %}",
            "t:1:10: the macro `a` leads back to itself",
        ),
        (
            &*format!("{{% macro m0() %}}{{% endmacro m0 %}}{macros}{{{{ self::m39() }}}}"),
            "t:9:10: with the macro `m9` there are more than 1000 calls",
        ),
        (&"{% if true %}\n".repeat(3_000), "t:101:1: more than 100 tags within each other"),
        (
            "\n{% for i in range(end=100000000) %}aaaa{% endfor %}",
            "t:2:13: `range` would have 100000000 elements; at most 10000 are made",
        ),
        (
            "\n{% for i in range(end=9, step_by=0) %}a{% endfor %}",
            "t:2:13: `range` with a step of 0 would never end",
        ),
        ("{{ range(end=\"x\") | yaml }}", "t:1:4: `end` of `range` is a number from 0 on, not \"x\""),
        (
            "{% for i in range(end=9000) %}\n{% for j in range(end=9000) %}{% for k in list -%}\n{% endfor %}{% endfor %}{% endfor %}",
            "t:2:1: the loops of this template take more than 100000 turns",
        ),
        (
            "{% set_global a = \"x\" %}\n{% for i in range(end=99) %}{% set_global a = a ~ a %}{% endfor %}{{ a | sh }}",
            "t:2:29: the template would write more than 64 MiB",
        ),
        (
            &*format!("\n{{% for i in range(end=9999) %}}{}{{% endfor %}}", "x".repeat(10_000)),
            "t:2:1: the template would write more than 64 MiB",
        ),
        (&"x".repeat(2 << 20), "t:1:1: the template has 2097152 bytes; at most 1048576 are read"),
        (&"{{ 1 }}".repeat(1_001), "t:1:7001: more than 1000 tags on one line"),
        (&sum, "t:2:1: more than 200 operators in one tag"),
        (&call, "t:2:1: more than 4 calls within each other"),
        (
            &format!("{{{{ {}list{} }}}}", "list[".repeat(90), "]".repeat(90)),
            "t:1:1: more than 16 brackets within each other",
        ),
    ] {
        let error = render("t", text, &json!({ "list": ["a"] })).expect_err(told);
        let findings: Vec<String> = error.findings().iter().map(ToString::to_string).collect();
        assert_eq!(findings.first().map(String::as_str), Some(told));
        assert!(error.findings().iter().all(|finding| !finding.help.is_empty()), "{told}");
        let mapped = render_mapped("t", text, &json!({ "list": ["a"] })).expect_err(told);
        assert_eq!(mapped.to_string(), error.to_string());
    }
}

#[test]
fn a_template_at_the_bounds_is_rendered() {
    let nested = "{% if true %}".repeat(100) + "x" + &"{% endif %}".repeat(100);
    let sum = format!("{{{{ 1{} }}}}", " + 1".repeat(199));
    let brackets = format!("{{{{ {}1{} }}}}", "(".repeat(16), ")".repeat(16));
    let calls = "{{ table | get(key=\"x\", default=table | get(key=\"x\", default=\"y\" | upper | replace(from=\"Y\", to=\"z\" | replace(from=\"z\", to=\"w\")))) | sh }}";
    for (text, rendered) in [
        (&*nested, "x"),
        (&sum, "200"),
        (&brackets, "1"),
        (calls, "'w'"),
        ("{% for i in range(start=2, end=9, step_by=3) -%}\n {{ i }}{% endfor -%}\n.", "258."),
        ("{% for k, v in table -%} {{ k | sh }}{{ v | sh }} {%- endfor %}", "'a''1'"),
        (
            "{% set a = 1 + 2 %}{% set b = a == 3 and not false %}{% set c = \"x\" ~ a | upper %}{{ a }}{{ b }}{{ c }}",
            "3trueX3",
        ),
        ("{% for x in list %}{% set_global all = all ~ x -%} {% endfor %}{{ all | sh }}", "'ab'"),
        (
            "{% macro a() %}x{% endmacro a %}{% macro b() %}{{ self::a() }}{{ self::a() }}{% endmacro b %}{{ self::b() }}",
            "xx",
        ),
    ] {
        let text = format!("{{% set all = \"\" %}}{text}");
        let values = json!({ "list": ["a", "b"], "table": { "a": "1" } });
        assert_eq!(render("t", &text, &values).unwrap_or_else(|error| panic!("{text}: {error:?}")), rendered);
    }
}

#[test]
fn values_that_a_language_can_not_hold_are_refused() {
    for (filter, value) in [
        ("ks", json!("UTC\nreboot")),
        ("ks", json!("--nontp")),
        ("debconf", json!("x\r\nd-i a/b string c")),
        ("debconf", json!("x\\")),
        ("sh", json!("a\0b")),
        ("sh", json!(["a"])),
        ("xml", json!("a\u{1}b")),
    ] {
        let text = format!("{{{{ v | {filter} }}}}");
        let error = render("t", &text, &json!({ "v": value })).expect_err(filter);
        assert!(matches!(error, RenderError::Render { .. }), "{filter}: {error}");
    }
}

#[test]
fn a_kickstart_word_is_quoted_only_where_it_must_be() {
    for (value, written) in [
        ("Europe/Berlin", "Europe/Berlin"),
        ("@^minimal-environment", "@^minimal-environment"),
        ("", "''"),
        ("$6$salt$hash", "$6$salt$hash"),
        ("a b", "'a b'"),
        ("a#b", "'a#b'"),
        ("it's", r"'it'\''s'"),
        ("%post", "'%post'"),
    ] {
        assert_eq!(render("t", "{{ v | ks }}", &json!({ "v": value })).expect("renders"), written);
    }
}

#[test]
fn a_folder_of_templates_is_rendered_as_a_whole() {
    let values = json!({ "name": "x y" });
    let set = render_all([("ks.cfg.tera", "lang {{ name | ks }}"), ("post.sh", "{{ as it is }}")], &values)
        .expect("ok");
    let texts: Vec<_> = set.texts().collect();
    assert_eq!(texts, [("ks.cfg", "lang 'x y'"), ("post.sh", "{{ as it is }}")]);
    let wrong = [("a.tera", "{{ nosuch | sh }}"), ("../b", ""), ("c.tera", "{{")];
    let errors = render_all(wrong, &values).expect_err("three");
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    a.tera:1:4: `nosuch` is not defined
    the template can't be served
    c.tera:1:3: the template can't be read
    ");
}

/// The text of `<a b="…">…</a>`, by XML's own rules for references, line ends and attributes.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        let (name, after) = after.split_once(';').expect("a reference ends");
        out.push_str(before);
        out.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            number => number
                .strip_prefix('#')
                .and_then(|n| n.parse().ok())
                .and_then(char::from_u32)
                .expect("a character"),
        });
        rest = after;
    }
    out + rest
}

proptest! {
    #[test]
    fn no_value_breaks_out_of_yaml(value in any::<String>()) {
        let out = render("t", "a: {{ v | yaml }}\nl: [{{ v | yaml }}, 2]\nb: 1\n", &json!({ "v": value })).expect("renders");
        let read: Value = serde_yaml::from_str(&out).expect("YAML");
        prop_assert_eq!(read, json!({ "a": value, "l": [value, 2], "b": 1 }));
    }

    #[test]
    fn no_value_breaks_out_of_json(value in any::<String>()) {
        let out = render("t", "{\"a\": {{ v | json }}, \"b\": 1}", &json!({ "v": value })).expect("renders");
        prop_assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON"), json!({ "a": value, "b": 1 }));
    }

    #[test]
    fn no_value_breaks_out_of_xml(value in "[\t\n\r -~\u{80}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]*") {
        let out = render("t", "{{ v | xml }}", &json!({ "v": value })).expect("renders");
        prop_assert!(!out.contains(['<', '>', '"', '\'', '\n', '\r', '\t']));
        prop_assert_eq!(unescaped(&out), value);
    }

    #[test]
    fn no_value_begins_another_line_of_a_preseed(value in any::<String>()) {
        if let Ok(out) = render("t", "d-i a/b string {{ v | debconf }}", &json!({ "v": value })) {
            prop_assert_eq!(out.lines().count(), 1);
            prop_assert!(!out.ends_with('\\'));
        }
    }
}

/// Each of these is a line's end for pykickstart 3.78, tried with a script that holds it.
#[test]
fn no_value_ends_a_script_of_a_kickstart() {
    let written = |value: String| render("t", "{{ v | sh }}", &json!({ "v": value }));
    for end in ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}']
    {
        for indent in ["", " ", "\t", "\u{1f}", "\u{a0}"] {
            let value = format!("a{end}{indent}%end");
            assert!(written(value.clone()).is_err(), "{value:?} would end the script");
        }
    }
    for value in ["%end", "a %end", "100%\nb", "a\u{8}%end", "a\n#%"] {
        assert!(written(value.to_owned()).is_ok(), "{value:?} ends nothing");
    }
}

proptest! {
    // Each case is a process.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_value_breaks_out_of_the_shell(value in "(?s)[^\0]*") {
        let Ok(out) = render("t", "printf %s {{ v | sh }}", &json!({ "v": value })) else {
            prop_assert!(value.contains('%'), "only what could be a section of a kickstart is refused");
            return Ok(());
        };
        let shell = std::process::Command::new("sh").arg("-c").arg(&out).output().expect("sh runs");
        prop_assert_eq!(String::from_utf8_lossy(&shell.stdout), value);
    }
}
