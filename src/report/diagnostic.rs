//! What is wrong with a file, as a person reads it: title, `file:line:column`, excerpt, hint.

use super::visible;
use crate::error::{Diagnostic, Place, Severity};
use crate::input::problem::{Source, Sources};
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

/// Renders something that is wrong at a place of a file.
pub fn render(diagnostic: &Diagnostic, place: &Place, sources: &Sources, colour: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(visible(&diagnostic.what));
    let mut report: Group = title.elements(Vec::<Snippet<'_, Annotation<'_>>>::new());
    if let Some(file) = sources.at(&place.span) {
        let mut snippet = snippet(file).annotation(
            AnnotationKind::Primary
                .span(file.visible(&place.span))
                .label(visible(&place.label)),
        );
        let context = place.context.as_ref();
        let context = context.and_then(|(span, label)| Some((sources.at(span)?, span, label)));
        match context {
            Some((other, span, label)) if other.is_same(file) => {
                let context = AnnotationKind::Context.span(file.local(span));
                snippet = snippet.annotation(context.label(visible(label)));
                report = report.element(snippet);
            }
            Some((other, span, label)) => {
                let context = AnnotationKind::Context.span(other.visible(span));
                let other = self::snippet(other).annotation(context.label(visible(label)));
                report = report.element(snippet).element(other);
            }
            None => report = report.element(snippet),
        }
    }
    if let Some(hint) = &diagnostic.hint {
        report = report.element(Level::HELP.with_name("hint").message(visible(hint)));
    }
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.render(&[report])
}

/// The text of a file. annotate-snippets shows other signs for control characters, but for those of U+0080 to U+009F, which some
/// terminals obey too. Their sign here has as many bytes, so that places stay where they are.
fn snippet(file: &Source) -> Snippet<'_, Annotation<'_>> {
    let text = file
        .text
        .replace(|c| matches!(c, '\u{80}'..='\u{9f}'), "\u{bf}");
    Snippet::source(text).path(visible(&file.shown))
}
