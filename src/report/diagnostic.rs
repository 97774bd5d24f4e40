//! What is wrong with a file, as a person reads it: title, `file:line:column`, excerpt, hint.

use crate::error::{Diagnostic, Place, Severity};
use crate::input::problem::Sources;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

/// Renders something that is wrong at a place of a file.
pub fn render(diagnostic: &Diagnostic, place: &Place, sources: &Sources, colour: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.what.as_str());
    let mut report: Group = title.elements(Vec::<Snippet<'_, Annotation<'_>>>::new());
    if let Some(file) = sources.at(&place.span) {
        let mut snippet = Snippet::source(file.text.as_str())
            .path(file.shown.as_str())
            .annotation(
                AnnotationKind::Primary
                    .span(file.visible(&place.span))
                    .label(place.label.as_str()),
            );
        let context = place.context.as_ref();
        let context = context.and_then(|(span, label)| Some((sources.at(span)?, span, label)));
        match context {
            Some((other, span, label)) if other.is_same(file) => {
                let context = AnnotationKind::Context.span(file.local(span));
                snippet = snippet.annotation(context.label(label));
                report = report.element(snippet);
            }
            Some((other, span, label)) => {
                let context = AnnotationKind::Context.span(other.visible(span));
                let other = Snippet::source(other.text.as_str()).path(other.shown.as_str());
                report = report.element(snippet);
                report = report.element(other.annotation(context.label(label)));
            }
            None => report = report.element(snippet),
        }
    }
    if let Some(hint) = &diagnostic.hint {
        report = report.element(Level::HELP.with_name("hint").message(hint.as_str()));
    }
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.render(&[report])
}
