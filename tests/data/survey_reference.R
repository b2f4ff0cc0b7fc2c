# Writes survey_reference.csv (a generated sample) and survey_reference.json (what R's survey package makes of it).
# Run in this folder: Rscript survey_reference.R
suppressPackageStartupMessages(library(survey))
options(digits = 17, warn = -1)
set.seed(20240517)

n <- 400
psu_stratum <- c(rep(1:5, each = 6), 6, 6)            # 32 PSUs in 6 strata
psu <- sample(seq_along(psu_stratum), n, replace = TRUE)
psu[1:32] <- 1:32
d <- data.frame(stratum = paste0("h", psu_stratum[psu]), psu = sprintf("p%02d", psu))
effect <- rnorm(32, 0, 6)[psu]
d$sex <- sample(c("f", "m"), n, replace = TRUE)
d$region <- sample(c("north", "south", "west"), n, replace = TRUE, prob = c(.5, .3, .2))
d$age <- sample(18:80, n, replace = TRUE)
d$income <- round(50 + effect + 0.4 * d$age + 4 * (d$sex == "m") + rnorm(n, 0, 12), 3)
d$hours <- round(pmin(pmax(rnorm(n, 36, 8) - 3 * (d$sex == "f"), 5), 70), 2)
d$w <- round(runif(n, 5, 40) * c(1, 2, .5, 1.5, 1, 3)[psu_stratum[psu]], 3)
d$income[sample(n, 15)] <- NA
d$region[sample(n, 9)] <- NA

design <- svydesign(ids = ~psu, strata = ~stratum, weights = ~w, data = d)
jkn <- as.svrepdesign(design, type = "JKn", compress = FALSE)
boot <- as.svrepdesign(design, type = "bootstrap", replicates = 15, compress = FALSE)
jk1 <- as.svrepdesign(svydesign(ids = ~psu, weights = ~w, data = d), type = "JK1", compress = FALSE)
half <- d$psu %in% unique(d$psu[order(d$psu)])[seq(1, 32, 2)]
d$half <- paste0("q", ifelse(half, 1, 2))             # two pseudo-PSUs in each stratum for balanced replication
paired <- svydesign(ids = ~half, strata = ~stratum, weights = ~w, data = d, nest = TRUE)
brr <- as.svrepdesign(paired, type = "BRR", compress = FALSE)
fay <- as.svrepdesign(paired, type = "Fay", fay.rho = 0.3, compress = FALSE)
replicates <- list(jkn = jkn, bootstrap = boot, jk1 = jk1, brr = brr, fay = fay)
for (m in names(replicates)) {
  weights_m <- round(as.matrix(unclass(weights(replicates[[m]], "analysis"))), 3)
  colnames(weights_m) <- paste0(m, "_", seq_len(ncol(weights_m)))
  d <- cbind(d, weights_m)
}

number <- function(x) paste(ifelse(is.na(x), "null", formatC(as.numeric(x), digits = 17, format = "g")), collapse = ", ")
json <- function(x) {
  if (is.list(x)) paste0("{", paste0('"', names(x), '": ', vapply(x, json, ""), collapse = ",\n"), "}")
  else if (is.character(x)) paste0("[", paste0('"', x, '"', collapse = ", "), "]")
  else if (length(x) == 1) number(x) else paste0("[", number(x), "]")
}
pair <- function(s) list(estimate = as.numeric(coef(s)), std_error = as.numeric(SE(s)))

estimates <- function(des) list(
  mean = pair(svymean(~income, des, na.rm = TRUE)),
  mean_by = pair(svyby(~income, ~sex, des, svymean, na.rm = TRUE)),
  mean_by2 = pair(svyby(~income, ~sex + region, des, svymean, na.rm = TRUE)),
  total = pair(svytotal(~income, des, na.rm = TRUE)),
  total_by = pair(svyby(~hours, ~region, des, svytotal)),
  count = pair(svytotal(~one, des)),
  count_by = pair(svyby(~one, ~region, des, svytotal)),
  ratio = pair(svyratio(~income, ~hours, des, na.rm = TRUE)),
  ratio_by = pair(svyby(~income, ~sex, denominator = ~hours, des, svyratio, na.rm = TRUE)),
  df = degf(des))

table_test <- function(des) {
  f <- svychisq(~sex + region, des, statistic = "F")
  x <- svychisq(~sex + region, des, statistic = "Chisq")
  cells <- svytotal(~interaction(sex, region), des, na.rm = TRUE)
  value <- svyby(~income, ~sex + region, des, svytotal, na.rm = TRUE)
  list(cells = pair(cells), value = pair(value), rows = pair(svyby(~one, ~sex, subset(des, !is.na(region)), svytotal)),
       f = as.numeric(f$statistic), f_df = as.numeric(f$parameter), f_p = as.numeric(f$p.value),
       chi_p = as.numeric(x$p.value), chi_df = as.numeric(x$parameter))
}

calibrated <- function(des, method) {
  ages <- c("young", "middle", "old")
  des <- update(des, sex = factor(sex, c("f", "m")), group = factor(group, ages))
  cal <- calibrate(des, ~sex + group, c(`(Intercept)` = 8500, sexm = 4500, groupmiddle = 3500, groupold = 2000),
                   calfun = method, epsilon = 1e-13, maxit = 500)
  g <- weights(cal) / weights(des)
  cell <- interaction(des$variables$group, des$variables$sex)
  list(g = as.numeric(tapply(g, cell, mean)), total = pair(svytotal(~income, cal, na.rm = TRUE)),
       mean = pair(svymean(~income, cal, na.rm = TRUE)), hours_total = pair(svytotal(~hours, cal)),
       hours_mean = pair(svymean(~hours, cal)))
}

d$one <- 1
d$group <- ifelse(d$age < 38, "young", ifelse(d$age < 60, "middle", "old"))
strata <- svydesign(ids = ~1, strata = ~stratum, weights = ~w, data = d)
weighted <- svydesign(ids = ~1, weights = ~w, data = d)
srs <- svydesign(ids = ~1, weights = ~one, data = d)
finite <- svydesign(ids = ~1, fpc = rep(5000, n), data = d)
clustered <- svydesign(ids = ~psu, strata = ~stratum, weights = ~w, data = d)
out <- list(clustered = estimates(clustered), strata = estimates(strata), weighted = estimates(weighted),
            srs = estimates(srs), finite = estimates(finite))
for (m in names(replicates)) {
  made <- replicates[[m]]
  of <- list(data = d, weights = ~w, repweights = as.matrix(d[, grep(paste0("^", m, "_"), names(d))]),
             type = c(jkn = "JKn", bootstrap = "bootstrap", jk1 = "JK1", brr = "BRR", fay = "Fay")[[m]])
  if (m == "jkn") of$rscales <- made$rscales
  if (m == "fay") of$rho <- 0.3
  des <- do.call(svrepdesign, of)
  out[[m]] <- c(estimates(des), list(scale = des$scale, rscales = des$rscales, replicates = ncol(des$repweights)))
}
out$horvitz_thompson <- list(estimate = as.numeric(coef(svytotal(~hours, weighted))) / 9000,
                             std_error = as.numeric(SE(svytotal(~hours, weighted))) / 9000)
out$deff <- as.numeric(deff(svymean(~income, clustered, na.rm = TRUE, deff = "replace")))

keep <- !(d$stratum == "h6" & d$psu == max(d$psu[d$stratum == "h6"]))      # one PSU left in stratum h6
lonely <- svydesign(ids = ~psu, strata = ~stratum, weights = ~w, data = d[keep, ])
for (rule in c("certainty", "adjust")) {
  options(survey.lonely.psu = rule)
  out[[paste0("lonely_", rule)]] <- estimates(lonely)
}
options(survey.lonely.psu = "fail")
out$table <- list(clustered = table_test(clustered), weighted = table_test(weighted), strata = table_test(strata))
out$calibrate <- list(raking = calibrated(clustered, "raking"), linear = calibrated(clustered, "linear"),
                      srs_raking = calibrated(srs, "raking"))
d$one <- NULL
write.csv(d, "survey_reference.csv", row.names = FALSE, na = "", quote = FALSE)
writeLines(json(out), "survey_reference.json")
