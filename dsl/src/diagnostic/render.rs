//! Diagnostics as annotated source snippets.

use super::Diagnostic;
use crate::parse::SourceSpans;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::ops::Range;

/// The diagnostic as text: title with code, the source line with a caret, help. `text` is what was
/// given to [`crate::parse::compile_file`]; `color` turns on ANSI colours.
pub fn render(
    diagnostic: &Diagnostic,
    spans: &SourceSpans,
    file_name: &str,
    text: &str,
    color: bool,
) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut snippet = Snippet::source(text).path(file_name);
    let primary = spans.range(diagnostic.primary).and_then(|r| within(r, text));
    let mut annotation = AnnotationKind::Primary.span(primary.unwrap_or(0..0));
    if !diagnostic.label.is_empty() {
        annotation = annotation.label(diagnostic.label.as_str());
    }
    snippet = snippet.annotation(annotation);
    for (span, label) in &diagnostic.secondary {
        if let Some(range) = spans.range(*span).and_then(|r| within(r, text)) {
            snippet = snippet.annotation(AnnotationKind::Context.span(range).label(label.as_str()));
        }
    }
    let mut group = Level::ERROR
        .primary_title(diagnostic.message.as_str())
        .id(diagnostic.code.name())
        .element(snippet);
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

/// The range if it lies in the text on character boundaries: a table made from another text must
/// not make the renderer fail.
fn within(range: Range<usize>, text: &str) -> Option<Range<usize>> {
    text.get(range.clone()).map(|_| range)
}
