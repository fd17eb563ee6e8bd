//! Results of a trial in the form that CI systems read (JUnit's, as the Ant task writes it). Pure.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use crate::event::{CheckResult, Verdict};

/// The XML of a trial.
#[must_use]
pub fn junit(suite: &str, results: &[CheckResult]) -> String {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    // Writing into memory does not fail.
    let _infallible = write(&mut writer, suite, results);
    let mut xml = String::from_utf8(writer.into_inner()).unwrap_or_default();
    xml.push('\n');
    xml
}

fn write(writer: &mut Writer<Vec<u8>>, suite: &str, results: &[CheckResult]) -> std::io::Result<()> {
    let count = |verdict: Verdict| results.iter().filter(|each| each.verdict == verdict).count().to_string();
    let total = results.iter().map(|each| each.took_ms).sum();
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    writer
        .create_element("testsuite")
        .with_attribute(("name", suite))
        .with_attribute(("tests", results.len().to_string().as_str()))
        .with_attribute(("failures", count(Verdict::Failed).as_str()))
        .with_attribute(("skipped", count(Verdict::Skipped).as_str()))
        .with_attribute(("time", seconds(total).as_str()))
        .write_inner_content(|writer| {
            for result in results {
                let case = writer
                    .create_element("testcase")
                    .with_attribute(("classname", suite))
                    .with_attribute(("name", result.name.as_str()))
                    .with_attribute(("time", seconds(result.took_ms).as_str()));
                let (element, said) = match result.verdict {
                    Verdict::Passed => ("system-out", None),
                    Verdict::Failed => ("failure", Some(result.detail.as_str())),
                    Verdict::Skipped => ("skipped", Some(result.detail.as_str())),
                };
                case.write_inner_content(|writer| {
                    let inner = writer.create_element(element);
                    match said {
                        Some(said) => inner.with_attribute(("message", said)).write_empty()?,
                        None => inner.write_text_content(BytesText::new(&result.detail))?,
                    };
                    Ok(())
                })?;
            }
            Ok(())
        })?;
    Ok(())
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_well_formed_whatever_they_say() {
        let result = |name: &str, verdict, detail: &str| CheckResult {
            name: name.into(),
            verdict,
            detail: detail.into(),
            took_ms: 1234,
        };
        let xml = junit(
            "tpl \"web\"",
            &[
                result("a < b", Verdict::Failed, "x ]]> & <y>"),
                result("c", Verdict::Passed, "fine"),
                result("d", Verdict::Skipped, "nothing"),
            ],
        );
        insta::assert_snapshot!(xml, @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuite name="tpl &quot;web&quot;" tests="3" failures="1" skipped="1" time="3.702">
          <testcase classname="tpl &quot;web&quot;" name="a &lt; b" time="1.234">
            <failure message="x ]]&gt; &amp; &lt;y&gt;"/>
          </testcase>
          <testcase classname="tpl &quot;web&quot;" name="c" time="1.234">
            <system-out>fine</system-out>
          </testcase>
          <testcase classname="tpl &quot;web&quot;" name="d" time="1.234">
            <skipped message="nothing"/>
          </testcase>
        </testsuite>
        "#);
    }
}
