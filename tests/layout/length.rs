//! Files and functions that one can hold in mind.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The longest file.
const FILE: usize = 500;

/// The longest function.
const FUNCTION: usize = 60;

/// Whether a file is too long.
pub fn is_long(text: &str) -> bool {
    text.lines().count() > FILE
}

/// The names of functions that are too long.
pub fn long_functions(text: &str) -> Vec<String> {
    let mut long = Vec::new();
    let tokens: TokenStream = text.parse().expect("it is Rust");
    functions(tokens, &mut |name, lines| {
        if lines > FUNCTION {
            long.push(name.to_owned());
        }
    });
    long
}

/// Hands on each function's name and its lines.
fn functions(tokens: TokenStream, found: &mut dyn FnMut(&str, usize)) {
    let mut begun: Option<(String, usize)> = None;
    let mut is_name = false;
    for token in tokens {
        match token {
            TokenTree::Ident(word) if word == "fn" => is_name = true,
            TokenTree::Ident(word) if is_name => {
                begun = Some((word.to_string(), word.span().start().line));
                is_name = false;
            }
            TokenTree::Group(group) => {
                let is_body = group.delimiter() == Delimiter::Brace;
                if let Some((name, first)) = begun.take_if(|_| is_body) {
                    found(&name, group.span_close().end().line - first + 1);
                }
                is_name = false;
                functions(group.stream(), found);
            }
            TokenTree::Punct(mark) if mark.as_char() == ';' => begun = None,
            _ => is_name = false,
        }
    }
}
