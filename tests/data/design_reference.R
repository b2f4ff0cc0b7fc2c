# Writes design_reference.json: what R's survey package makes of the generated sample of survey_reference.csv in
# design-based regressions, tests and quantiles, and lme4 of a mixed model. Run in this folder: Rscript design_reference.R
suppressPackageStartupMessages(library(survey))
options(digits = 17, warn = -1)
d <- read.csv("survey_reference.csv", na.strings = c("NA", ""))
d$young <- as.numeric(d$age < 45)
d$visits <- d$age %% 7

number <- function(x) paste(ifelse(is.finite(x), formatC(as.numeric(x), digits = 17, format = "g"), "null"), collapse = ", ")
json <- function(x) {
  if (is.list(x)) paste0("{", paste0('"', names(x), '": ', vapply(x, json, ""), collapse = ",\n"), "}")
  else if (length(x) == 1) number(x) else paste0("[", number(x), "]")
}
model <- function(formula, des, family) {
  m <- svyglm(formula, des, family = family, control = list(epsilon = 1e-14, maxit = 100))
  list(estimate = as.numeric(coef(m)), std_error = as.numeric(SE(m)), df = m$df.residual,
       p_value = as.numeric(summary(m)$coefficients[, 4]), deviance = m$deviance)
}
test <- function(t) list(estimate = as.numeric(t$estimate), statistic = as.numeric(t$statistic),
                         df = as.numeric(t$parameter), p_value = as.numeric(t$p.value),
                         lower = as.numeric(t$conf.int)[1], upper = as.numeric(t$conf.int)[2])
quantiles <- function(des) {
  q <- svyquantile(~age, des, c(.25, .5, .9))$age
  list(estimate = q[, 1], lower = q[, 2], upper = q[, 3], std_error = q[, 4])
}
chi <- function(des) {
  f <- svychisq(~sex + region, des, statistic = "F"); x <- svychisq(~sex + region, des, statistic = "Chisq")
  list(f = as.numeric(f$statistic), f_df = as.numeric(f$parameter), f_p = as.numeric(f$p.value),
       chi_p = as.numeric(x$p.value))
}
all_of <- function(des) {
  v <- svyvar(~income, subset(des, !is.na(income)), na.rm = TRUE)
  both <- svyvar(~income + hours, subset(des, !is.na(income)), na.rm = TRUE)
  by <- svyby(~hours, ~sex, des, svymean)
  list(gaussian = model(income ~ age + sex, des, gaussian()), binomial = model(young ~ hours + sex, des, quasibinomial()),
       poisson = model(visits ~ hours + sex, des, quasipoisson()),
       two = test(svyttest(hours ~ sex, des)), two_missing = test(svyttest(income ~ sex, des)),
       one = test(svyttest(I(hours - 34) ~ 0, des)), paired = test(svyttest(I(hours - age) ~ 0, des)),
       variance = list(estimate = as.numeric(coef(v)), std_error = as.numeric(SE(v))),
       covariance = list(estimate = as.numeric(coef(both)), std_error = as.numeric(SE(both))),
       quantile = quantiles(des), chi = chi(des), degf = degf(des))
}
designs <- list(clustered = svydesign(ids = ~psu, strata = ~stratum, weights = ~w, data = d),
                strata = svydesign(ids = ~1, strata = ~stratum, weights = ~w, data = d),
                weighted = svydesign(ids = ~1, weights = ~w, data = d))
scales <- as.svrepdesign(designs$clustered, type = "JKn", compress = FALSE)$rscales
for (m in c("jkn", "bootstrap", "jk1", "brr", "fay")) {
  of <- list(data = d, weights = ~w, repweights = as.matrix(d[, grep(paste0("^", m, "_"), names(d))]),
             type = c(jkn = "JKn", bootstrap = "bootstrap", jk1 = "JK1", brr = "BRR", fay = "Fay")[[m]])
  if (m == "jkn") of$rscales <- scales
  if (m == "fay") of$rho <- 0.3
  designs[[m]] <- do.call(svrepdesign, of)
}
d$rich <- as.numeric(d$income > 72)
mixed <- lme4::glmer(rich ~ hours + (1 | psu), d, family = binomial, nAGQ = 1,
                     control = lme4::glmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10)))
laplace <- list(estimate = as.numeric(lme4::fixef(mixed)), sigma = as.numeric(attr(lme4::VarCorr(mixed)$psu, "stddev")),
                log_likelihood = as.numeric(logLik(mixed)))
out <- c(lapply(designs, all_of), list(jkn_rscales = scales, glmer = laplace))
writeLines(json(out), "design_reference.json")
