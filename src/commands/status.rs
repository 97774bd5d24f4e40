//! What there is beside the plan.

use super::Context;
use crate::diff::difference::Object;
use crate::diff::status::{Findings, Status};
use crate::diff::{self, Request, Selection, containers, preflight};
use crate::error::{Error, ExitStatus};
use crate::observe::{self, Lan};
use crate::plan::{Env, Host};
use crate::report;
use crate::state::State;
use crate::system::Machine;

impl Context<'_> {
    /// `homelab status`.
    ///
    /// # Errors
    /// When the kernel, systemd or the Engine cannot be asked.
    pub async fn status(&self) -> Result<ExitStatus, Error> {
        let (machine, mut state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        let mut findings = Findings::default();
        if let Some(missing) = state.docker_missing.clone() {
            findings.add_diagnostic(missing);
            let up = diff::diff(&Request::ShimUp(host), self.plan, &state);
            findings.add_result("homelab shim up", up);
        } else {
            let up = diff::diff(&Request::NetworkUp(host), self.plan, &state);
            findings.add_result("homelab network-up", up);
            for env in &self.plan.envs {
                let isolation = preflight::isolation(self.plan, env, &state);
                let limits = preflight::limits(self.plan, env, &state);
                for missing in [isolation.err(), limits.err()].into_iter().flatten() {
                    findings.add_diagnostic(missing);
                }
                self.look_at(env, host, &machine, &mut state, &mut findings)
                    .await?;
            }
        }
        let health = observe::health(&machine, &state).await?;
        let status = Status::new(self.plan, host, &state, &health, findings);
        report::status(self.report, &status, self.sources);
        Ok(if status.findings.is_empty() {
            ExitStatus::Done
        } else {
            ExitStatus::Different
        })
    }

    /// What env-up would do in an environment.
    async fn look_at(
        &self,
        env: &Env,
        host: &Host,
        machine: &Machine,
        state: &mut State,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        let command = format!("homelab env-up --env {}", env.name);
        let selection = Selection::whole(self.plan, env, host);
        let services = match super::environment::complete(&selection) {
            Ok(services) => services,
            Err(problems) => {
                for problem in problems {
                    findings.add_diagnostic(problem);
                }
                return Ok(());
            }
        };
        observe::services(machine, self.plan, env, &services, Lan::LeftAlone, state).await?;
        findings.add_result(&command, containers::up(&selection, &services, state));
        for (_, orphan) in selection.orphans(state) {
            let difference = Object::new("container", orphan.name.as_str()).unplanned();
            let fix = format!("`{command} --remove-orphans`");
            findings.add_difference(&difference, fix);
        }
        Ok(())
    }
}
