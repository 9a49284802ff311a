"""The names that swappable parts go by, each with the "module:attribute" that is imported when it is asked for."""

P2P, TRANSACTIVE = "peergrid.envs.p2p_trading", "peergrid.envs.transactive"
OF_POLICIES = "peergrid.baselines.policies"

MECHANISMS = {name: f"{P2P}.mechanisms:{name}" for name in ("call_auction", "mid_market_rate", "bilateral", "direct")}
DSOS = {
    "opf": "peergrid.envs.p2p_trading.scenario:build_dso",
    "unchecked": "peergrid.envs.p2p_trading.scenario:build_unchecked_dso",
}
PREDICTORS = {
    "auto": "peergrid.surrogate.predictor:auto",
    "none": f"{P2P}.predictors:no_prediction",
    "transformer": "peergrid.surrogate.predictor:transformer",
    "oracle": f"{P2P}.predictors:oracle",
}
POLICIES = {
    "random": f"{OF_POLICIES}.fixed:RandomPolicy",
    "no_trade": f"{OF_POLICIES}.fixed:NoTrade",
    "truthful": f"{OF_POLICIES}.fixed:Truthful",
    "planned": f"{OF_POLICIES}.fixed:Planned",
    "receding": f"{OF_POLICIES}.fixed:Receding",
    "selfish": f"{OF_POLICIES}.fixed:Selfish",
    "adaptive": f"{OF_POLICIES}.fixed:Adaptive",
    "zero_intelligence": f"{OF_POLICIES}.fixed:ZeroIntelligence",
    "foresighted": f"{OF_POLICIES}.foresight:Foresighted",
    "strategic": f"{OF_POLICIES}.foresight:Strategic",
    "network_mpc": f"{OF_POLICIES}.foresight:NetworkMpc",
    "case_1": f"{OF_POLICIES}.cases:Case1",
    "case_2": f"{OF_POLICIES}.cases:Case2",
    "case_3": f"{OF_POLICIES}.cases:Case3",
    "case_3_this_hour": f"{OF_POLICIES}.cases:Case3ThisHour",
    "case_3_cut_only": f"{OF_POLICIES}.cases:Case3CutOnly",
    "case_3_blind": f"{OF_POLICIES}.cases:Case3Blind",
    "optimal": f"{OF_POLICIES}.fixed:Optimal",
}
TRANSACTIVE_POLICIES = {
    "optimising": f"{OF_POLICIES}.transactive:Optimising",
    "myopic": f"{OF_POLICIES}.transactive:Myopic",
    "scheduled": f"{OF_POLICIES}.transactive:Scheduled",
}
RULES = {name: f"{TRANSACTIVE}.signal:{name}" for name in ("halving", "fixed", "proportional", "none")}
