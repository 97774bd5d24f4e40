//! homelab
mod config;
mod plan;
mod problem;
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let s = std::fs::read_to_string(&path).unwrap();
    let (c, p) = config::parse(&s);
    match plan::compile(&c, std::path::Path::new("/etc/homelab"), p) {
        Ok((plan, w)) => {
            println!("{plan:#?}");
            for p in w {
                println!("{}", p.render(&s, &path, false));
            }
        }
        Err(w) => {
            for p in w {
                println!("{}\n", p.render(&s, &path, false));
            }
        }
    }
}
