"""A few documents in both languages, each about one thing, and questions that fit exactly one."""

from consilience.documents import Document
from consilience.store import Store

TEXTS = {
    "leave": "Employees receive twenty-five days of annual leave and apply for it in writing.",
    "visits": "Visiting hours of the cardiology ward are from two to six in the afternoon.",
    "loans": "The bank charges an interest rate of 4.2 percent on mortgage loans.",
    "library": "The university library lends books for four weeks, and journals not at all.",
    "parking": "Parking permits cost 30 euros a month and are sold at the reception.",
    "年假": "员工每年享有二十五天带薪年假，须以书面形式提出申请。",
    "探视": "心脏病科病房的探视时间为下午两点至六点。",
    "贷款": "银行对住房抵押贷款收取百分之四点二的利率。",
    "图书馆": "大学图书馆的图书借期为四周，期刊概不外借。",
    "停車": "停車證每月三十歐元，在接待處購買。",
}

QUESTIONS = {
    "How many days of annual leave do employees receive?": "leave",
    "When are the visiting hours of the cardiology ward?": "visits",
    "What is the interest rate on mortgage loans?": "loans",
    "What do parking permits cost?": "parking",
    "员工每年享有多少天带薪年假？": "年假",
    "大学图书馆的图书借期为几周？": "图书馆",
    "停車證每月多少歐元？": "停車",
}


def fill(store: Store, *names: str, access: tuple[str, ...] = ()) -> None:
    """Add the named documents, or all of them."""
    wanted = names or tuple(TEXTS)
    store.add([Document(TEXTS[name], source=name, access=access) for name in wanted])
