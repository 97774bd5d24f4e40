//! What there is beside the plan.

use super::Context;
use crate::diff::Selection;
use crate::diff::status::{Findings, Status};
use crate::error::{Diagnostic, Error, ExitStatus};
use crate::observe::{self, Lan};
use crate::plan::{Env, Host};
use crate::report;
use crate::state::State;
use crate::system::{Machine, arp};

impl Context<'_> {
    /// `homelab status`.
    ///
    /// # Errors
    /// When the kernel, systemd or the Engine cannot be asked.
    pub async fn status(&self) -> Result<ExitStatus, Error> {
        let (machine, mut state) = observe::machine_and_filters(self.plan, &self.plan.envs).await?;
        let host = self.host(&state)?;
        self.warn_of_ways_out(host, &state);
        let mut findings = Findings::default();
        let paths = self.unit_paths().ok();
        let unit = paths.as_ref().map(|paths| paths.unit(host));
        findings.add_host(self.plan, host, unit, &state);
        if state.docker_missing.is_none() {
            findings.add_unplanned(self.plan, &state);
            for env in &self.plan.envs {
                findings.add_isolation(self.plan, env, &state);
                self.look_at(env, host, &machine, &mut state, &mut findings)
                    .await?;
            }
        }
        let answers = observe::duplicates(self.plan, host, &state);
        if !arp::is_permitted() {
            self.report.warnings(&[Diagnostic::warning(
                "the LAN was not asked who else has the addresses of this host: not permitted",
                "run homelab as root",
            )]);
        }
        let (answers, health) = tokio::try_join!(answers, observe::health(&machine, &state))?;
        state.answered = answers;
        state.ways = observe::ways(&machine.netlink, self.plan, &state).await?;
        findings.add_ways(self.plan, host, &state);
        findings.add_lan(self.plan, host, &state);
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
        findings.add_environment(&selection, &services, state);
        Ok(())
    }
}
