//! A file of src as the rules see it: its code without tests, its literals, and what it uses.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of src without its tests.
pub struct Source {
    /// Its path in src without the ending, like `system/netlink`.
    pub name: String,
    pub text: String,
    /// Its tokens, one space between two; comments and the tests are no part of it.
    pub code: String,
    /// The texts of its literals.
    pub literals: Vec<String>,
}

impl Source {
    pub fn new(name: &str, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tokens = without_tests(file.items);
        let (mut code, mut literals) = (Vec::new(), Vec::new());
        flatten(tokens, &mut code, &mut literals);
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
            code: format!(" {} ", code.join(" ")),
            literals,
        }
    }

    pub fn is_in(&self, place: &str) -> bool {
        self.name == place || self.name.starts_with(&format!("{place}/"))
    }

    pub fn is_in_any(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.is_in(place))
    }

    pub fn has(&self, tokens: &str) -> bool {
        self.code.contains(&format!(" {tokens} "))
    }

    /// The modules that it uses, as paths from the root, like `["plan", "naming"]`.
    pub fn uses(&self) -> BTreeSet<Vec<String>> {
        let tokens: Vec<&str> = self.code.split(' ').filter(|t| !t.is_empty()).collect();
        let mut all = BTreeSet::new();
        let mut index = 0;
        while let Some(token) = tokens.get(index) {
            let own: Vec<String> = self.name.split('/').map(str::to_owned).collect();
            let base = match *token {
                "crate" => Some(Vec::new()),
                "super" if tokens.get(index.wrapping_sub(1)) != Some(&"(") => {
                    let up = own.len() - 1;
                    Some(own.into_iter().take(up).collect())
                }
                _ => None,
            };
            index += 1;
            if let Some(base) = base {
                index = branches(&tokens, index, base, &mut all);
            }
        }
        all
    }
}

/// Follows a path, and all branches of a tree of paths; returns where it ends.
fn branches(
    tokens: &[&str],
    mut index: usize,
    mut path: Vec<String>,
    all: &mut BTreeSet<Vec<String>>,
) -> usize {
    while tokens.get(index) == Some(&"::") {
        match tokens.get(index + 1).copied() {
            Some("{") => {
                index += 2;
                while let Some(token) = tokens.get(index).copied() {
                    index = match token {
                        "}" => return index + 1,
                        "," | "as" => index + 1,
                        name => {
                            let mut longer = path.clone();
                            longer.push(name.to_owned());
                            branches(tokens, index + 1, longer, all)
                        }
                    };
                }
                return index;
            }
            Some("super") => {
                path.pop();
                index += 2;
            }
            Some(name) => {
                path.push(name.to_owned());
                index += 2;
            }
            None => break,
        }
    }
    all.insert(path);
    index
}

/// Items without those that are there for tests only.
fn without_tests(items: Vec<syn::Item>) -> TokenStream {
    let is_test = |attributes: &[syn::Attribute]| {
        attributes.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute
                    .meta
                    .to_token_stream()
                    .to_string()
                    .contains("test")
        })
    };
    let mut tokens = TokenStream::new();
    for item in items {
        let attributes = match &item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_test(attributes) {
            item.to_tokens(&mut tokens);
        }
    }
    tokens
}

fn flatten(tokens: TokenStream, code: &mut Vec<String>, literals: &mut Vec<String>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => {
                let inside = group.stream();
                // Doc comments are attributes.
                if inside.to_string().starts_with("doc =") {
                    continue;
                }
                let (open, close) = match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => ("(", ")"),
                    proc_macro2::Delimiter::Brace => ("{", "}"),
                    proc_macro2::Delimiter::Bracket => ("[", "]"),
                    proc_macro2::Delimiter::None => ("", ""),
                };
                code.push(open.to_owned());
                flatten(inside, code, literals);
                code.push(close.to_owned());
            }
            TokenTree::Literal(literal) => {
                literals.push(literal.to_string());
                code.push("LITERAL".to_owned());
            }
            TokenTree::Punct(first) => {
                let is_path = first.as_char() == ':'
                    && matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':');
                if is_path {
                    tokens.next();
                    code.push("::".to_owned());
                } else {
                    code.push(first.to_string());
                }
            }
            TokenTree::Ident(ident) => code.push(ident.to_string()),
        }
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut all) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("it can be read") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                all.push(path);
            }
        }
    }
    all.sort();
    all
}

/// Every file of src but those of tests.
pub fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut all = Vec::new();
    for path in files(&src) {
        let name = path.strip_prefix(&src).expect("it is in src");
        let name = name.with_extension("").display().to_string();
        let is_test = name.split('/').any(|part| part == "tests") || name.ends_with("_tests");
        if !is_test {
            let text = fs::read_to_string(&path).expect("sources are text");
            all.push(Source::new(&name, &text));
        }
    }
    assert!(all.len() > 60, "only {} files were found", all.len());
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
