# Writes lifetimes_reference.json: what R's survey package makes of lifetimes made from the generated sample of
# survey_reference.csv: svykm, withReplicates of the curve, svylogrank and svycoxph.
# Run in this folder: Rscript lifetimes_reference.R
suppressPackageStartupMessages(library(survey))
options(digits = 17, warn = -1)
d <- read.csv("survey_reference.csv", na.strings = c("NA", ""))
d$months <- (d$age * 7 + floor(d$hours)) %% 24 + 1
d$region <- factor(d$region)
d$ended <- as.numeric((d$age + floor(d$hours)) %% 3 > 0)

number <- function(x) paste(ifelse(is.finite(x), formatC(as.numeric(x), digits = 17, format = "g"), "null"), collapse = ", ")
json <- function(x) {
  if (is.list(x)) paste0("{", paste0('"', names(x), '": ', vapply(x, json, ""), collapse = ",\n"), "}")
  else if (length(x) == 1) number(x) else paste0("[", number(x), "]")
}
times <- sort(unique(d$months))
product_limit <- function(w, data, group, log = FALSE) {  # at all times; as svykm(se = FALSE)
  inside <- group(data); y <- data$months[inside]; s <- data$ended[inside]; w <- w[inside]
  at <- vapply(times, function(t) sum(w[y >= t]), 0); dead <- vapply(times, function(t) sum(w[y == t & s == 1]), 0)
  h <- ifelse(at > 0, dead / at, 0)
  list(surv = cumprod(1 - h), hazard = cumsum(h), h = h, at = at)
}
curve <- function(des, group) {
  w <- weights(des, "sampling"); data <- des$variables; k <- product_limit(w, data, group)
  if (inherits(des, "svyrep.design")) {
    se <- function(what) SE(withReplicates(des, function(w, data) product_limit(w, data, group)[[what]]))
    return(list(survival = k$surv, std_error = se("surv"), hazard = k$hazard, hazard_std_error = se("hazard")))
  }
  inside <- group(data)
  r <- svykm(Surv(months, ended) ~ 1, des[inside, ], se = TRUE)
  last <- vapply(times, function(t) if (any(r$time <= t)) max(which(r$time <= t)) else NA_integer_, 1L)
  z <- vapply(seq_along(times), function(m) {  # linearised logarithm of the product-limit estimate
    each <- 0
    for (j in seq_len(m)) each <- each + ifelse(inside, ((data$months == times[j]) * data$ended -
      k$h[j] * (data$months >= times[j])) / (k$at[j] * (1 - k$h[j])), 0)
    each
  }, numeric(nrow(data)))
  error <- vapply(seq_along(times), function(m) as.numeric(SE(svytotal(z[, m], des))), 0)
  list(survival = k$surv, std_error = k$surv * error, hazard = -log(r$surv[last]),
       hazard_std_error = sqrt(r$varlog[last]))
}
test <- function(formula, des) {
  if (inherits(des, "svyrep.design")) {  # svylogrank finds no data there: its scores, and svytotal
    m <- coxph(formula, des$variables, weights = w, iter.max = 0); x <- model.matrix(m); k <- coxph.detail(m)
    means <- as.matrix(k$means); y <- m$y
    scores <- vapply(seq_len(ncol(x)), function(p) {
      own <- ifelse(y[, 2] == 1, x[, p] - means[match(y[, 1], k$time), p], 0)
      own - rowSums(outer(x[, p], means[, p], "-") * outer(y[, 1], k$time, ">=") * rep(k$hazard, each = nrow(x)))
    }, numeric(nrow(x)))
    u <- svytotal(scores, des)
    chi_square <- as.numeric(coef(u) %*% solve(vcov(u), coef(u)))
    return(list(chi_square = chi_square, p_value = pchisq(chi_square, ncol(x), lower.tail = FALSE)))
  }
  t <- svylogrank(formula, des)[[2]]
  list(chi_square = as.numeric(t[1]), p_value = as.numeric(t[2]))
}
cox <- function(m, des) {
  list(estimate = as.numeric(coef(m)), std_error = as.numeric(SE(m)), df = degf(des) + 1 - length(coef(m)))
}
exact <- coxph.control(eps = 1e-14, toler.chol = 1e-15, iter.max = 100)
all_of <- function(des) {
  list(all = curve(des, function(d) rep(TRUE, nrow(d))), f = curve(des, function(d) d$sex == "f"),
       m = curve(des, function(d) d$sex == "m"),
       sex = test(Surv(months, ended) ~ sex, des), region = test(Surv(months, ended) ~ region, subset(des, !is.na(region))),
       efron = cox(svycoxph(Surv(months, ended) ~ age + sex, des, control = exact), des),
       breslow = cox(svycoxph(Surv(months, ended) ~ age + sex, des, method = "breslow", control = exact), des),
       missing = cox(svycoxph(Surv(months, ended) ~ income + strata(region), des, control = exact), des))
}
designs <- list(clustered = svydesign(ids = ~psu, strata = ~stratum, weights = ~w, data = d),
                strata = svydesign(ids = ~1, strata = ~stratum, weights = ~w, data = d),
                weighted = svydesign(ids = ~1, weights = ~w, data = d))
for (m in c("bootstrap", "jk1", "fay")) {
  of <- list(data = d, weights = ~w, repweights = as.matrix(d[, grep(paste0("^", m, "_"), names(d))]),
             type = c(bootstrap = "bootstrap", jk1 = "JK1", fay = "Fay")[[m]])
  if (m == "fay") of$rho <- 0.3
  designs[[m]] <- do.call(svrepdesign, of)
}
writeLines(json(lapply(designs, all_of)), "lifetimes_reference.json")
